"""A fault campaign: what can go wrong with a disk, a process or a file is made to go wrong, and what follows is judged.

Each kind of fault is a module that counts into a :class:`tests.faults.tally.Tally`. ``test_faults.py`` runs the short
form, ``make campaign`` the long one. Children are forks of one process that has imported everything and computed
nothing.
"""
