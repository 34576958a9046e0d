"""The aggregator's asyncio shell around the coordinator: intake, journal, fold, publication."""
