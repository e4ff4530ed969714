"""Tests of what runs on a GPU: on a pretended one everywhere, and on a true one where there is one."""
