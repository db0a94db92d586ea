"""What works through whole collections: backfill, verify, repair, finalize."""
