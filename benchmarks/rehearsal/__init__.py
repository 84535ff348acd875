"""The mid-size rehearsal: the ordinary commands on real photos, watched from outside."""
