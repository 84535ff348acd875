"""The synthetic worlds: scenes, phrases, drawings."""
