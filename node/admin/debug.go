package admin

import (
	"net/http"
	"net/http/pprof" // registers itself at http.DefaultServeMux as well, which nothing here serves
	"strconv"
	"time"
)

// maxProfile is the longest profile or trace that may be asked for.
const maxProfile = 5 * time.Minute

func (s *Server) metrics(r *request, w http.ResponseWriter) {
	if s.cfg.Metrics == nil {
		s.fail(w, Errorf(StatusNotFound, "this node collects no metrics"))
		return
	}
	s.writeDeadline(w, s.cfg.CallTimeout)
	s.cfg.Metrics.ServeHTTP(w, r.Request)
}

// pprof serves the profiles of net/http/pprof, under authentication.
func (s *Server) pprof(r *request, w http.ResponseWriter) {
	if v := r.URL.Query().Get("seconds"); v != "" {
		if n, err := strconv.ParseFloat(v, 64); err != nil || !(n >= 0 && n <= maxProfile.Seconds()) {
			s.fail(w, Errorf(StatusBadRequest, "parameter %q is %q: want a number from 0 to %d", "seconds", v, int(maxProfile.Seconds())))
			return
		}
	}
	s.writeDeadline(w, maxProfile+s.cfg.CallTimeout)
	switch r.URL.Path {
	case "/debug/pprof/cmdline":
		pprof.Cmdline(w, r.Request)
	case "/debug/pprof/profile":
		pprof.Profile(w, r.Request)
	case "/debug/pprof/symbol":
		pprof.Symbol(w, r.Request)
	case "/debug/pprof/trace":
		pprof.Trace(w, r.Request)
	default:
		pprof.Index(w, r.Request)
	}
}
