"""What the demo, the benchmark and the tests run the node against: PACSes on free ports, a sender, and the node itself.

Every class here owns one process or one listening thread, started in a folder of its own and ended by its id.
"""
