"""Test support for the core and for anybody's plugin: contract suite, fakes named after how they fail, a client.

Needs the extra ``eg-core[testing]``. ``contract.BackendContract`` is what a backend must pass.
"""
