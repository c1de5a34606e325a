// Package stores starts and stops real object store servers on loopback and
// random ports, for tests, for the demo and for benchmarks: versitygw (S3, on a
// directory), fake-gcs-server (Google Cloud Storage, in memory) and Azurite
// (Azure Blob Storage, in memory unless Options.Dir is given).
//
//	server, err := stores.StartS3(ctx, stores.Options{})
//	defer server.Stop()
//	bucket, err := server.Bucket(ctx)
//	store, err := s3.New(ctx, server.Options(bucket))
//
// A test package starts one server for all of its tests in TestMain (see Main),
// or calls S3, GCS or Azure below testing.go for one that lives as long as a
// test. Each call of Bucket makes a fresh bucket or container.
//
// With Options.TLS a server speaks https, with a certificate of an authority
// made on the spot, whose certificate is in CAFile.
//
// Nothing survives: Stop kills a server with its children and removes its
// directory, and the kernel kills it when the program that started it dies.
//
// The servers are installed into .cache of the checkout by
// scripts/install-stores.sh ("make tools").
package stores
