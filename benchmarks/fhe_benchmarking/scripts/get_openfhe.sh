#!/usr/bin/env bash
# The harness calls this before a build; this submission does not use OpenFHE.
