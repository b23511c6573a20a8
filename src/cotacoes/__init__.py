"""cotacoes: a crypto price feed that you run yourself and can pull the plug on."""

__version__ = "0.2.0"
