"""What engines, gateways and clients send of their own accord, and how requests are made of it:
placements, spans, OTLP.

May import `wire` and `errors`. Pure: bytes or spans in, events out.

    instances.py      which serving instance runs on which GPUs at a time
    placed_events.py  an event that names an instance, with its GPUs
    spans.py          a span, whatever it came in
    otlp.py           spans in OTLP's two encodings, and its answers
    span_usages.py    from spans to requests: one set of rules; span_figures.py: what one span says,
                      by one table of names; span_places.py: where its request ran
"""
