"""The command line: ``eg serve`` (also ``jupyter enterprisegateway``) and ``eg lab``."""
