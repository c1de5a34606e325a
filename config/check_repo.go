package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"filippo.io/age"
)

// storeKeys are the keys of a repository of which exactly one must be there.
var storeKeys = []string{"s3", "gcs", "azure", "filesystem"}

func (k checker) repo(r *Repo, field string) {
	var stores []string
	for _, s := range storeKeys {
		if k.present(field + "." + s) {
			stores = append(stores, s)
		}
	}
	switch {
	case len(stores) == 0 && k.present(field+".name"):
		k.refuse(field, "found no store", "exactly one of "+strings.Join(storeKeys, ", "))
	case len(stores) > 1:
		k.refuse(field+"."+stores[1], "found "+strings.Join(stores, " and ")+" in one repository", "exactly one of "+strings.Join(storeKeys, ", "))
	}
	if r.Prefix != "" && !validPrefix(r.Prefix) {
		k.refuse(field+".prefix", "found "+quote(r.Prefix), "parts joined by '/', each of letters, digits, '.', '_' or '-' and not ending in '.'; at most 200 bytes")
	}
	k.s3(r.S3, field+".s3")
	k.gcs(r.GCS, field+".gcs")
	k.azure(r.Azure, field+".azure")
	if r.Filesystem != nil {
		k.absolute(field+".filesystem.path", r.Filesystem.Path)
	}
	k.compression(r.Compression, field+".compression")
	k.encryption(r.Encryption, field+".encryption")
	k.retention(r.Retention, field+".retention")
	k.retry(r.Retry, field+".retry")
	k.between(field+".limit.requests", r.Limit.Requests, 4, 10000)
}

func validPrefix(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !isClusterName(part) {
			return false
		}
	}
	return len(s) <= 200
}

func (k checker) s3(s *S3, field string) {
	if s == nil {
		return
	}
	k.endpoint(field+".endpoint", s.Endpoint)
	k.absolute(field+".ca-file", s.CAFile)
	k.absolute(field+".credentials-file", s.CredentialsFile)
	k.absolute(field+".access-key-id-file", s.AccessKeyIDFile)
	k.absolute(field+".secret-access-key-file", s.SecretAccessKeyFile)
	k.absolute(field+".session-token-file", s.SessionTokenFile)
	keys := s.AccessKeyIDFile != "" && s.SecretAccessKeyFile != ""
	switch {
	case !keys && (s.AccessKeyIDFile != "" || s.SecretAccessKeyFile != ""):
		k.refuse(field, "found one of access-key-id-file and secret-access-key-file", "both or none")
	case !keys && s.SessionTokenFile != "":
		k.refuse(field+".session-token-file", "found it alone", "access-key-id-file and secret-access-key-file beside it")
	case keys && (s.CredentialsFile != "" || s.Profile != ""):
		k.refuse(field, "found files with keys and a credentials-file or profile", "one way to sign in")
	}
}

func (k checker) gcs(g *GCS, field string) {
	if g == nil {
		return
	}
	k.endpoint(field+".endpoint", g.Endpoint)
	k.absolute(field+".credentials-file", g.CredentialsFile)
	k.absolute(field+".ca-file", g.CAFile)
	if g.Anonymous && g.CredentialsFile != "" {
		k.refuse(field+".anonymous", "found anonymous and credentials-file", "one way to sign in")
	}
}

func (k checker) azure(a *Azure, field string) {
	if a == nil {
		return
	}
	k.endpoint(field+".endpoint", a.Endpoint)
	k.absolute(field+".account-key-file", a.AccountKeyFile)
	k.absolute(field+".sas-token-file", a.SASTokenFile)
	k.absolute(field+".ca-file", a.CAFile)
	if a.AccountKeyFile != "" && a.SASTokenFile != "" {
		k.refuse(field+".sas-token-file", "found account-key-file and sas-token-file", "one way to sign in")
	}
}

// endpoint checks "host", "host:port" or a URL, without a password.
func (k checker) endpoint(field, s string) {
	if s == "" {
		return
	}
	if strings.Contains(s, "://") {
		k.url(field, s)
		return
	}
	u, err := url.Parse("https://" + s)
	if err != nil || u.User != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" {
		found := "found " + quote(s)
		if strings.Contains(s, "@") {
			found = "found a user or password"
		}
		k.refuse(field, found, "host, host:port or a URL")
	}
}

func (k checker) compression(c Compression, field string) {
	high := 19
	switch c.Codec {
	case "", "zstd":
	case "lz4":
		high = 9
	case "none":
		if k.present(field + ".level") {
			k.refuse(field+".level", "found a level with codec none", "no level")
		}
		return
	default:
		k.refuse(field+".codec", "found "+quote(c.Codec), "zstd, lz4 or none")
		return
	}
	k.between(field+".level", c.Level, 1, high)
}

func (k checker) encryption(e *Encryption, field string) {
	if e == nil {
		return
	}
	if len(e.Recipients) == 0 && e.RecipientsFile == "" && e.IdentityFile == "" {
		k.refuse(field, "found nobody to encrypt to", "recipients, recipients-file or identity-file")
	}
	kinds := map[string]bool{}
	k.recipients(e.Recipients, field+".recipients", kinds)
	k.recipients(e.MetadataRecipients, field+".metadata-recipients", kinds)
	if len(kinds) > 1 {
		k.refuse(field, "found classic and post-quantum recipients", "one kind: together the classic ones would undo the protection")
	}
	k.absolute(field+".recipients-file", e.RecipientsFile)
	k.absolute(field+".identity-file", e.IdentityFile)
	k.absolute(field+".metadata-identity-file", e.MetadataIdentityFile)
}

func (k checker) recipients(keys []string, field string, kinds map[string]bool) {
	for i, s := range keys {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch kind, err := recipientKind(s); {
		case strings.HasPrefix(strings.ToUpper(s), "AGE-SECRET-KEY-"):
			k.refuse(at, "found a secret key in the configuration", "the public key (age1…); the secret key belongs into an identity file")
		case err != nil:
			k.refuse(at, fmt.Sprintf("found %s: %v", quote(s), err), "an age public key (age1…)")
		default:
			kinds[kind] = true
		}
	}
}

// recipientKind parses a public key and says of which kind it is.
func recipientKind(s string) (string, error) {
	if strings.ContainsAny(s, "\n\r") || strings.HasPrefix(s, "#") {
		return "", errors.New("not one key")
	}
	kind, err := "x25519", error(nil)
	if strings.HasPrefix(s, "age1pq1") {
		kind = "pq"
		_, err = age.ParseHybridRecipient(s)
	} else {
		_, err = age.ParseX25519Recipient(s)
	}
	switch {
	case err == nil:
		return kind, nil
	case strings.Contains(err.Error(), "checksum"):
		return "", errors.New("mistyped (its checksum is wrong)")
	default:
		return "", errors.New("not a key")
	}
}

func (k checker) retention(r Retention, field string) {
	k.between(field+".full", r.Full, 1, 1_000_000)
	k.between(field+".differential", r.Differential, 1, 1_000_000)
	k.between(field+".wal", r.WAL, 1, 1_000_000)
	for name, n := range map[string]int{"daily": r.Keep.Daily, "weekly": r.Keep.Weekly, "monthly": r.Keep.Monthly, "yearly": r.Keep.Yearly} {
		k.between(field+".keep."+name, n, 1, 1_000_000)
	}
	if k.present(field+".keep") && r.Keep == (Keep{}) {
		k.refuse(field+".keep", "found nothing to keep", "daily, weekly, monthly or yearly")
	}
	if k.present(field+".wal-type") && !k.present(field+".wal") {
		k.refuse(field+".wal-type", "found wal-type without wal", "wal: of how many backups WAL is kept")
	}
	if k.present(field+".full-type") && !k.present(field+".full") {
		k.refuse(field+".full-type", "found full-type without full", "full: how many are kept, or how many days")
	}
}

func (k checker) retry(r Retry, field string) {
	above := func(small, large string, a, b Duration) {
		if a > 0 && b > 0 && a > b {
			k.refuse(field+"."+small, "found a "+small+" above "+large, "at most "+large)
		}
	}
	above("first-delay", "max-delay", r.FirstDelay, r.MaxDelay)
	above("max-delay", "total", r.MaxDelay, r.Total)
	above("first-delay", "total", r.FirstDelay, cmp.Or(r.Total, Duration(defaultRetryTotal)))
}
