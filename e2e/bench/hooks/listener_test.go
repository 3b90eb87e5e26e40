package hooks_test

import "net"

// counting counts the connections of a server.
type counting struct {
	net.Listener
	s *server
}

// Accept implements net.Listener.
func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.s.mu.Lock()
		c.s.opened++
		c.s.mu.Unlock()
	}
	return conn, err
}
