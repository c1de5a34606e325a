package rest

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/walkeep/walkeep/api"
)

// faultFor is the fault for what the service answered.
func faultFor(err error) error {
	if f := (*api.Fault)(nil); errors.As(err, &f) {
		return f
	}
	status := http.StatusInternalServerError
	for _, row := range []struct {
		is     error
		status int
	}{
		{api.ErrNotFound, http.StatusNotFound},
		{api.ErrNotRunning, http.StatusConflict},
		{api.ErrBusy, http.StatusConflict},
		{api.ErrPaused, http.StatusConflict},
		{api.ErrInvalid, http.StatusUnprocessableEntity},
		{api.ErrNotLeader, http.StatusServiceUnavailable},
		{context.DeadlineExceeded, http.StatusGatewayTimeout},
	} {
		if errors.Is(err, row.is) {
			status = row.status
			break
		}
	}
	return api.NewFault(status, err.Error(), err)
}

// invalid is a fault of one field.
func invalid(location, message string) error {
	f := api.NewFault(http.StatusUnprocessableEntity, "", api.ErrInvalid)
	f.Errors = []api.FieldFault{{Location: location, Message: message}}
	return f
}

// faultOf makes what huma finds wrong with a request our kind of fault. The
// value is not sent back: who sent it knows it, and it may be long.
func faultOf(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	var kind error
	if m.Status == http.StatusUnprocessableEntity {
		kind = api.ErrInvalid
	}
	f := api.NewFault(m.Status, m.Detail, kind)
	for _, e := range m.Errors {
		if e != nil {
			f.Errors = append(f.Errors, api.FieldFault{Location: e.Location, Message: e.Message})
		}
	}
	return f, nil
}
