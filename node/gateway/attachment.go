package gateway

// SetAttachment lets the Backend keep something with the session. Only for use within Backend's Login, Send and Closed, which
// run on the session's read goroutine.
func (s *Session) SetAttachment(v any) { s.attachment = v }

// Attachment returns what SetAttachment was given last, nil before that.
func (s *Session) Attachment() any { return s.attachment }
