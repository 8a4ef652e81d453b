"""The gateway's memory: what was started, with which secrets, so that a restarted gateway finds it again.

``store``    the async interface; the only module others use, with ``records``, ``errors`` and ``keys``
``records``  what goes in and comes out: plain frozen dataclasses
``rows``     records to rows and back: bounds, JSON, encryption (``cipher``)
``schema``   the tables; ``migrations`` how they came to be; ``migrate`` runs those when a store is opened
``engine``   SQLite or PostgreSQL, and their manners
``keys``     where the key comes from

Knows nothing of kernels' life: a state is a word here, and its transitions are the registry's.
"""
