package stores

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/walkeep/walkeep/repo/object/azure"
)

// azureAPI is a version of the protocol that Azurite knows for certain.
const azureAPI = "2023-11-03"

// Azure is an Azurite with one account.
type Azure struct {
	*Server
	Account string
	KeyFile string

	key []byte
}

// StartAzure starts one.
func StartAzure(ctx context.Context, o Options) (*Azure, error) {
	binary, err := Locate("azurite-blob")
	if err != nil {
		return nil, err
	}
	a := &Azure{Account: "walkeep" + random(4), key: make([]byte, 32)}
	rand.Read(a.key) // never fails
	key := base64.StdEncoding.EncodeToString(a.key)
	a.Server, err = start(ctx, program{
		name: "azurite",
		command: func(s *Server, port string) *exec.Cmd {
			args := []string{
				"--blobHost", "127.0.0.1", "--blobPort", port, "--silent",
				// Our SDK is newer than Azurite.
				"--skipApiVersionCheck", "--disableTelemetry", "--disableProductStyleUrl",
			}
			if s.keep {
				args = append(args, "--location", s.Dir)
			} else {
				args = append(args, "--inMemoryPersistence") // quicker
			}
			if o.TLS {
				args = append(args, "--cert", s.certFile(), "--key", s.keyFile())
			}
			cmd := exec.Command(binary, args...)
			cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+a.Account+":"+key)
			return cmd
		},
		path:  "/",
		ready: func(resp *http.Response) bool { return strings.HasPrefix(resp.Header.Get("Server"), "Azurite") },
	}, o)
	if err != nil {
		return nil, err
	}
	if a.KeyFile, err = a.secret("account-key", key); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

// Bucket makes an empty container.
func (a *Azure) Bucket(ctx context.Context) (string, error) {
	name := "walkeep-" + random(6)
	path := "/" + a.Account + "/" + name
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, a.URL+path+"?restype=container", nil)
	if err != nil {
		return "", err
	}
	date := time.Now().UTC().Format(http.TimeFormat)
	req.Header.Set("x-ms-date", date)
	req.Header.Set("x-ms-version", azureAPI)
	// "Shared Key": the verb, eleven headers that we do not send, the x-ms ones,
	// and the resource, which in path style has the account twice.
	sign := "PUT" + strings.Repeat("\n", 12) + "x-ms-date:" + date + "\nx-ms-version:" + azureAPI +
		"\n/" + a.Account + path + "\nrestype:container"
	mac := hmac.New(sha256.New, a.key)
	mac.Write([]byte(sign))
	req.Header.Set("Authorization", "SharedKey "+a.Account+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	resp, err := a.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return "", fmt.Errorf("create container %s: %s: %s", name, resp.Status, why)
	}
	return name, nil
}

// Options are those of a driver for a container of this server.
func (a *Azure) Options(name string) azure.Options {
	return azure.Options{Container: name, Account: a.Account, Endpoint: a.URL, KeyFile: a.KeyFile, CAFile: a.CAFile}
}
