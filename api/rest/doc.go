// Package rest is the REST API of the service, and the server that it, the web
// page and metrics share.
//
// # The document
//
// Each operation is a Go function from an input to an output type; huma makes
// the OpenAPI 3.1 document from those types, checks requests against it before
// the function is called, and so the document cannot say what the server does
// not do. Descriptions of fields are the Go comments of package api
// (descriptions.json), examples are what this very server answers to a service
// in memory (examples.json). Both files are made by the tests of this package
// (-update), which fail when they are out of step; so is docs/openapi.yaml.
//
// # What a request passes
//
//	connection   a bound on their number, TLS, timeouts for header, body, idleness
//	guard        who is it, limit of requests, requests in progress, header of the answer
//	operation    its role, its body (64 KiB at most) and parameters
//	Service      bounded in time
//
// healthz and readyz pass none of it but the connection: what asks them has no
// token.
//
// Everything that only looks is answered from the snapshot of the service,
// without waiting for a repository or a server.
//
// # Streams
//
// A client that follows a run holds a goroutine and little else. It is sent the
// run when it changed, at most twice a second, and a comment every 15 seconds.
// Each client has its own deadline for each write: one that stands still is cut
// off, and nobody waits for it. Whoever was cut off asks again: every event is
// the whole run, so nothing is missed by it.
//
// # Other sites
//
// A browser sends a client's certificate whatever page it shows. Requests that
// change something and come from the page of another site are therefore refused.
package rest
