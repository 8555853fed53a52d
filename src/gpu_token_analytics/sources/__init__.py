"""What engines, gateways and clients send of their own accord, and how requests are made of it:
placements, spans, OTLP.

May import `wire` and `errors`. Pure: bytes or spans in, events out.

    instances.py     which serving instance runs on which GPUs at a time
    spans.py         a span, whatever it came in
    otlp.py          spans in OTLP's two encodings, and its answers
    span_usages.py   from spans to requests: one table of names, one set of rules
"""
