"""MongoDB: connection, durability, the server's clock, write commands, indexes, and drivers' errors
in our words.

May import pymongo, the shared words, `documents` and `wire`; knows no cell, no sum and no price.

    client.py    connection, the server's clock; errors.py: the driver's errors in our words
    commands.py  write commands sent as they are; encoded.py: documents as bytes
    pieces.py    what is too many for one document or command, cut by number and bytes
    indexes.py   every index, TTL and view
    storage.py   how raw events are kept on disk
    aside.py     what MongoDB refuses for good
    copies.py    the whole store as of one moment
"""
