# shellcheck shell=bash
# Sourced by e2e.sh and images/test.sh: where helm and kubectl are.

# Path of helm or kubectl: from PATH, else from the wheel that `make install` fetched. find_tool NAME
find_tool() {
  command -v "$1" || echo "$("${PYTHON:-.venv/bin/python}" helm/programs.py)/$1"
}
