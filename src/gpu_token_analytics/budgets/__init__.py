"""Budgets: what may be spent in a period, what is, what it will come to, and alerts that are sent
once.

May import `books` (teams), `rollups`, `costs`, `mongo` and the shared words.

A figure is a sum of `costs`; receivers of alerts are settings.
"""
