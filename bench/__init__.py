"""Measures valqd against Valkey called directly and against beanstalkd: ``python -m bench``."""
