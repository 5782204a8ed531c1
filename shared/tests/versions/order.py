"""How libapt or librpm orders pairs of versions: lines of `one TAB other` in, a line of <, = or > for each out."""

import sys

kind = sys.argv[1]
if kind == "deb":
    import apt_pkg

    apt_pkg.init_system()

    def compare(one, other):
        return apt_pkg.version_compare(one, other)

else:
    import rpm

    def split(evr):
        epoch, rest = evr.split(":", 1)
        version, release = rest.rsplit("-", 1)
        return epoch, version, release

    def compare(one, other):
        return rpm.labelCompare(split(one), split(other))


for line in sys.stdin:
    one, other = line.rstrip("\n").split("\t")
    found = compare(one, other)
    sys.stdout.write("<\n" if found < 0 else ">\n" if found > 0 else "=\n")
