"""How Backpack talks (pure): envelope, subscriptions, signing, REST bodies."""
