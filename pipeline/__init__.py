"""Gatehouse: from data to production, with nothing let through unmeasured, unapproved or changed."""
