// Package cloud holds what the drivers of remote stores (s3, gcs, azure) have
// in common: the HTTP transport, secrets in files, reading a body in parts
// from reused buffers, sending parts in parallel within a memory bound, and
// readers that tell a broken download from the end of an object.
//
// It knows no SDK.
package cloud
