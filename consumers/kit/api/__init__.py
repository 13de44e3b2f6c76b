"""The parts of a consumer: the class to subclass, its handlers, its results and state."""
