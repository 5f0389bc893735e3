def render(evidence, verdict=None, approvals=()):
    return {"evidence.html": b"x", "evidence-standalone.html": b"x"}
