package kubernetes

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	authentication "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/internal/credentials"
)

// Subjects are users and groups, as the API server names them.
type Subjects struct {
	Users, Groups []string
}

func (s Subjects) has(u authentication.UserInfo) bool {
	return slices.Contains(s.Users, u.Username) || slices.ContainsFunc(u.Groups, func(g string) bool { return slices.Contains(s.Groups, g) })
}

// ReviewerOptions of NewReviewer. Client and Audience are required.
type ReviewerOptions struct {
	Client             *Client
	Audience           string // what tokens have to be issued for
	Operators, Viewers Subjects
	Log                *zap.Logger // nil: none
}

// Reviewer lets those in whose bearer token the API server vouches for.
type Reviewer struct {
	o     ReviewerOptions
	known *cache.LRUExpireCache // answers by digest of the token: none is left in memory
	once  singleflight.Group
	limit *rate.Limiter
}

const (
	// A token that was revoked, or a user who lost a group, is let in this long.
	rememberYes = time.Minute
	// A token that is not valid is asked about this seldom.
	rememberNo = 10 * time.Second
	// remembered is how many answers are kept; the oldest ones go first.
	remembered = 1000
	// reviews a second, and at once: whoever sends tokens of his own making does
	// not turn us against the API server.
	reviews, reviewsAtOnce = 10, 50
)

var errReviews = errors.New("review a token: too many in a short time")

// NewReviewer asks nothing yet.
func NewReviewer(o ReviewerOptions) *Reviewer {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &Reviewer{o: o, known: cache.NewLRUExpireCache(remembered), limit: rate.NewLimiter(reviews, reviewsAtOnce)}
}

// Authenticate is for api.Authenticator.
func (r *Reviewer) Authenticate(q *http.Request) (api.Identity, error) {
	token, ok := credentials.Bearer(q)
	if !ok {
		return api.Identity{}, nil
	}
	left := lifetime(token, r.o.Audience, time.Now())
	if left <= 0 {
		return api.Identity{}, nil
	}
	digest := sha256.Sum256([]byte(token))
	if id, ok := r.known.Get(digest); ok {
		return id.(api.Identity), nil
	}
	id, err, _ := r.once.Do(string(digest[:]), func() (any, error) {
		// Others wait for the answer, whoever asked first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(q.Context()), answerTime)
		defer cancel()
		id, err := r.review(ctx, token)
		if err != nil {
			return id, err
		}
		remember := rememberNo
		if id.Role > api.Nobody {
			remember = rememberYes
		}
		r.known.Add(digest, id, min(remember, left))
		return id, nil
	})
	return id.(api.Identity), err
}

// review asks the API server. Who has no role is Nobody.
func (r *Reviewer) review(ctx context.Context, token string) (id api.Identity, err error) {
	if !r.limit.Allow() {
		return id, errReviews
	}
	ask := &authentication.TokenReview{Spec: authentication.TokenReviewSpec{Token: token, Audiences: []string{r.o.Audience}}}
	var says authentication.TokenReview
	if err := r.o.Client.authentication.Post().Resource("tokenreviews").Body(ask).Do(ctx).Into(&says); err != nil {
		return id, fmt.Errorf("review a token: %w", err)
	}
	switch {
	case !says.Status.Authenticated:
		r.o.Log.Info("a token is not valid", zap.String("reason", says.Status.Error))
		return id, nil
	case !slices.Contains(says.Status.Audiences, r.o.Audience):
		// A server that knows no audiences says so by naming none.
		r.o.Log.Warn("a token is for others", zap.Strings("audiences", says.Status.Audiences))
		return id, nil
	}
	switch user := says.Status.User; {
	case r.o.Operators.has(user):
		return api.Identity{Name: user.Username, Role: api.Operator}, nil
	case r.o.Viewers.has(user):
		return api.Identity{Name: user.Username, Role: api.Viewer}, nil
	default:
		r.o.Log.Warn("a user of Kubernetes has no role here", zap.String("user", user.Username), zap.Strings("groups", user.Groups))
		return id, nil
	}
}

// lifetime is how long a JSON web token for an audience says that it is valid; 0
// if it is none. Whether it speaks the truth the API server decides.
func lifetime(token, audience string, now time.Time) time.Duration {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil || !slices.Contains(claims.Audience, audience) {
		return 0
	}
	if claims.ExpiresAt == nil {
		return rememberYes
	}
	return claims.ExpiresAt.Sub(now)
}
