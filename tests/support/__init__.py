from tests.support.stepped_clock import install

install()
