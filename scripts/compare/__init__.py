"""The peers that scripts/compare.py compares tcpprobe with."""
