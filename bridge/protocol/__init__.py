"""The protocol of Backpack Exchange (pure): envelope, subscriptions, signing, REST bodies."""
