# The kernel that the series applies to.  Read by make and by the shell alike,
# so: NAME=value, no spaces, no quotes.
BASE_PKG=linux-source-7.3
BASE_SUITE=trixie-backports
BASE_VERSION=7.3.4-1~bpo13+1
BASE_DEB_SHA256=703e369ddd4cce971452f5a593ee55df3a5c10c83caf0fa0df039633ed181ee3
BASE_TAR_SHA256=76df1affb19f24926949369be1d74b60071c963c598ce8780bddd4bbf0fc3bc4
