package peer

import (
	"net/netip"
	"syscall"
)

// cut shuts the connection to a remote address down below Go Micro, which offers no way to reach it.
func cut(remote string) {
	for fd := range 1024 {
		address, err := syscall.Getpeername(fd)
		if err == nil && text(address) == remote {
			_ = syscall.Shutdown(fd, syscall.SHUT_RDWR)
		}
	}
}

func text(address syscall.Sockaddr) string {
	switch a := address.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()
	}
	return ""
}
