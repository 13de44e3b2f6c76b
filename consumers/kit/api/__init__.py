"""What a consumer is made of: the class to subclass, its handlers, its results and state."""
