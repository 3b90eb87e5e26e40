// Package httpserver is the HTTP listener that both the public door and the operations door stand on: a server with limits
// ([Server]), a Gin engine that answers every mistake with a problem document ([NewEngine]), and the routes for metrics and
// health ([Ops]).
//
// It guarantees that a slow or silent client is cut off, that headers are bounded, that plain HTTP is served only where the
// configuration says so, that a renewed certificate is used from the next handshake on, and that a panic of a handler is
// answered, counted and logged without anything of the request's headers. It bounds the connections and the requests in hand,
// and so the memory that they take: beyond them 503 is answered at once. It does not know who its clients are, beyond their
// addresses.
package httpserver
