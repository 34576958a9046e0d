"""The device's asyncio shell around the participant: model in, training beside the loop, update out."""
