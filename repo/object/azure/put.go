package azure

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/internal/cloud"
)

// upload is one Put on its way.
type upload struct {
	*store
	blob  *blockblob.Client
	key   string
	opts  object.PutOptions
	token string
}

// Put implements object.Store.
func (s *store) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	if err := object.CheckPut(key, opts); err != nil {
		return object.Info{}, err
	}
	u := &upload{store: s, blob: s.client.NewBlockBlobClient(key), key: key, opts: opts, token: cloud.NewToken()}
	b := cloud.NewBody(body, opts.Size)
	first := s.parts.Buffers.Get(s.parts.First(opts.Size))
	n, more, err := b.Fill(first)
	if err != nil {
		return object.Info{}, s.fail("put", key, err)
	}
	if more {
		return u.blocks(ctx, b, first)
	}
	info, err := u.single(ctx, first[:n])
	if err == nil {
		s.parts.Buffers.Put(first)
	}
	return info, err
}

// single stores data with one request.
func (u *upload) single(ctx context.Context, data []byte) (object.Info, error) {
	out, err := u.blob.Upload(patient(ctx), readSeeker(data), &blockblob.UploadOptions{
		Metadata: u.metadata(), AccessConditions: u.conditions(),
		TransactionalValidation: checked(),
	})
	if err == nil {
		return u.done(int64(len(data)), out.ETag, out.LastModified), nil
	}
	info, err := u.settle(ctx, err)
	if errors.Is(err, errNothingThere) {
		// Blocks that somebody staged are in the way of Put Blob, but not of
		// Put Block List; see the package comment.
		id := u.ids()(1)
		if err := u.stageOne(patient(ctx), id, data); err != nil {
			return object.Info{}, u.fail("put", u.key, err)
		}
		return u.commit(ctx, []string{id}, int64(len(data)))
	}
	return info, err
}

// blocks stores first and the rest of the body as blocks. Until the last
// request, Put Block List, the name is as it was, and that request changes it at
// once: so an upload that ends anywhere leaves nothing but staged blocks, which
// no one sees and the store drops.
func (u *upload) blocks(ctx context.Context, body *cloud.Body, first []byte) (object.Info, error) {
	ids, size, err := u.stage(ctx, body, first)
	if err != nil {
		return object.Info{}, u.fail("put", u.key, err)
	}
	return u.commit(ctx, ids, size)
}

// commit makes staged blocks the blob.
func (u *upload) commit(ctx context.Context, ids []string, size int64) (object.Info, error) {
	out, err := u.blob.CommitBlockList(patient(ctx), ids, &blockblob.CommitBlockListOptions{
		Metadata: u.metadata(), AccessConditions: u.conditions(),
	})
	if err != nil {
		return u.settle(ctx, err)
	}
	return u.done(size, out.ETag, out.LastModified), nil
}

// stage sends the body as blocks and returns their ids, in order, and the
// number of bytes.
func (u *upload) stage(ctx context.Context, body *cloud.Body, first []byte) ([]string, int64, error) {
	id := u.ids()
	var (
		mu      sync.Mutex // guards numbers and size
		numbers []int
		size    int64
	)
	err := u.parts.Send(patient(ctx), body, first, u.opts.Size, func(ctx context.Context, number int, part []byte) error {
		if err := u.stageOne(ctx, id(number), part); err != nil {
			return fmt.Errorf("block %d: %w", number, err)
		}
		mu.Lock()
		defer mu.Unlock()
		numbers = append(numbers, number)
		size += int64(len(part))
		return nil
	})
	slices.Sort(numbers)
	ids := make([]string, len(numbers))
	for i, number := range numbers {
		ids[i] = id(number)
	}
	return ids, size, err
}

func (u *upload) stageOne(ctx context.Context, id string, data []byte) error {
	_, err := u.blob.StageBlock(ctx, id, readSeeker(data), &blockblob.StageBlockOptions{TransactionalValidation: checked()})
	return err
}

// ids makes block ids that no other upload has; all are of one length, which
// Azure wants.
func (u *upload) ids() func(number int) string {
	var writer [16]byte
	rand.Read(writer[:]) // never fails
	return func(number int) string {
		return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(writer[:], uint32(number)))
	}
}

// checked makes the store verify what arrives.
func checked() blob.TransferValidationType { return blob.TransferValidationTypeComputeCRC64() }

func readSeeker(data []byte) io.ReadSeekCloser { return streaming.NopCloser(bytes.NewReader(data)) }

func (u *upload) metadata() map[string]*string {
	return map[string]*string{cloud.TokenKey: &u.token}
}

func (u *upload) conditions() *blob.AccessConditions {
	var c blob.ModifiedAccessConditions
	switch {
	case u.opts.IfAbsent:
		any := azcore.ETagAny
		c.IfNoneMatch = &any
	case u.opts.IfMatch != "":
		tag := azcore.ETag(u.opts.IfMatch)
		c.IfMatch = &tag
	default:
		return nil
	}
	return &blob.AccessConditions{ModifiedAccessConditions: &c}
}

func (u *upload) done(size int64, etag *azcore.ETag, modified *time.Time) object.Info {
	return object.Info{Key: u.key, Size: size, Modified: deref(modified), Version: version(etag)}
}

// errNothingThere: the key was taken, but then no one had it.
var errNothingThere = errors.New("it was gone, or never quite there, a moment later")

// settle decides what the failure of the storing request means: lost to
// another writer, stored after all by an earlier try of the same request, or
// plainly failed.
func (u *upload) settle(ctx context.Context, err error) (object.Info, error) {
	code, status, _ := answer(err)
	conditional := u.opts.IfAbsent || u.opts.IfMatch != ""
	failed := code == bloberror.ConditionNotMet || code == bloberror.BlobAlreadyExists ||
		u.opts.IfMatch != "" && code == bloberror.BlobNotFound
	thrownAway := code == bloberror.InvalidBlockList // by another writer's commit
	if !conditional || !failed && !thrownAway && status != http.StatusConflict {
		return object.Info{}, u.fail("put", u.key, err)
	}
	info, token, statErr := u.properties(ctx, "put", u.key)
	found := statErr == nil
	switch {
	case statErr != nil && !errors.Is(statErr, object.ErrNotFound):
		return object.Info{}, statErr
	case found && token == u.token:
		return info, nil
	case u.opts.IfAbsent && failed && !found:
		return object.Info{}, fmt.Errorf("put %s in %s: %w: %w", u.key, u.place, object.ErrExists, errNothingThere)
	case u.opts.IfAbsent && found:
		return object.Info{}, fmt.Errorf("put %s in %s: %w", u.key, u.place, object.ErrExists)
	case u.opts.IfMatch != "" && (failed || thrownAway && info.Version != u.opts.IfMatch):
		return object.Info{}, fmt.Errorf("put %s in %s: %w", u.key, u.place, object.ErrChanged)
	}
	return object.Info{}, u.fail("put", u.key, err)
}
