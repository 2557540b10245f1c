// A receiver of Framehook's callbacks. Needs Go 1.19 and nothing else.
//
//	FRAMEHOOK_CALLBACK_KEY=... go run . -listen 127.0.0.1:9000
//
// Answers 200 only to callbacks whose two signatures are right, and prints one line for each event.
package main

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// The largest callback stays under 6 KiB.
	bodyBytesMax = 64 << 10
	// How far the header's timestamp may lie from our clock, as in the Standard Webhooks libraries.
	tolerance = 5 * time.Minute
	// A signature in the body is good for ten minutes after sending; a t further ahead was made for later use.
	life = 10 * time.Minute
	// How long a sender may take for one request.
	requestPatience = 10 * time.Second
	// How many ids are kept.
	idsMax = 10_000
)

// Event holds the fields that are printed; there are more.
type Event struct {
	EventType    int         `json:"event_type"`
	App          string      `json:"app"`
	AppName      string      `json:"appname"`
	StreamID     string      `json:"stream_id"`
	Width        int         `json:"width"`
	Height       int         `json:"height"`
	PicFullURL   string      `json:"pic_full_url"`
	PushDuration string      `json:"push_duration"`
	T            json.Number `json:"t"`
	Sign         string      `json:"sign"`
}

func (event Event) String() string {
	stream := event.App + "/" + event.AppName + "/" + event.StreamID
	switch event.EventType {
	case 200:
		return fmt.Sprintf("snapshot %s %dx%d %s", stream, event.Width, event.Height, event.PicFullURL)
	case 1:
		return "push-began " + stream
	case 0:
		return fmt.Sprintf("push-ended %s after %s ms", stream, event.PushDuration)
	default:
		return fmt.Sprintf("event-%d %s", event.EventType, stream)
	}
}

// webhookSecret is the secret of the header signature: a key whsec_... is base64 of it, any other key is the secret itself.
func webhookSecret(key string) ([]byte, error) {
	if encoded := strings.TrimPrefix(key, "whsec_"); encoded != key {
		return base64.StdEncoding.DecodeString(encoded)
	}
	return []byte(key), nil
}

// checkHeaders follows Standard Webhooks: HMAC-SHA256 over id, timestamp and body. It returns the id.
func checkHeaders(secret []byte, headers http.Header, body []byte, now time.Time) (string, error) {
	id, timestamp := headers.Get("webhook-id"), headers.Get("webhook-timestamp")
	sent, err := strconv.ParseInt(timestamp, 10, 64)
	if age := now.Sub(time.Unix(sent, 0)); err != nil || age > tolerance || age < -tolerance {
		return "", errors.New("webhook-timestamp is missing or more than five minutes off")
	}
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	// There are several signatures while the sender's key is being changed.
	for _, candidate := range strings.Split(headers.Get("webhook-signature"), " ") {
		if hmac.Equal([]byte(expected), []byte(candidate)) {
			return id, nil
		}
	}
	return "", errors.New("no signature in webhook-signature fits the body")
}

// checkBody follows CSS: sign is MD5 of key and t.
func checkBody(key string, body []byte, now time.Time) (Event, error) {
	var event Event
	if err := json.Unmarshal(body, &event); err != nil {
		return event, errors.New("the body is not an event")
	}
	t, err := event.T.Int64()
	if err != nil {
		return event, errors.New("t is missing or not a number of seconds")
	}
	if now.Unix() > t || t > now.Add(life+tolerance).Unix() {
		return event, errors.New("t has passed or lies too far ahead")
	}
	sum := md5.Sum([]byte(fmt.Sprintf("%s%d", key, t)))
	if !hmac.Equal([]byte(hex.EncodeToString(sum[:])), []byte(strings.ToLower(event.Sign))) {
		return event, errors.New("sign is not MD5(key + t)")
	}
	return event, nil
}

// recent holds the last ids that were dealt with. Keep them in your database instead, in the transaction that holds what
// you did: then a callback that comes again after a crash is known too.
type recent struct {
	mutex sync.Mutex
	known map[string]bool
	order []string
}

// once runs deal unless the id is known.
func (r *recent) once(id string, deal func()) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.known[id] {
		return
	}
	deal()
	r.known[id] = true
	r.order = append(r.order, id)
	if len(r.order) > idsMax {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
}

type receiver struct {
	key    string
	secret []byte
	recent recent
}

func (r *receiver) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodPost {
		answer(writer, http.StatusMethodNotAllowed, "callbacks are POST requests")
		return
	}
	// The bytes as they came: a body that was parsed and written again has another signature.
	body, err := io.ReadAll(http.MaxBytesReader(writer, request.Body, bodyBytesMax))
	if err != nil {
		answer(writer, http.StatusRequestEntityTooLarge, "the body broke off or is longer than a callback can be")
		return
	}
	now := time.Now()
	id, err := checkHeaders(r.secret, request.Header, body, now)
	if err != nil {
		answer(writer, http.StatusUnauthorized, err.Error())
		return
	}
	event, err := checkBody(r.key, body, now)
	if err != nil {
		answer(writer, http.StatusUnauthorized, err.Error())
		return
	}
	r.recent.once(id, func() { fmt.Println(event) })
	answer(writer, http.StatusOK, "")
}

func answer(writer http.ResponseWriter, status int, message string) {
	code := 0
	if status != http.StatusOK {
		code = 1
		log.Printf("refused: %s", message)
	}
	writer.Header().Set("content-type", "application/json")
	writer.WriteHeader(status)
	json.NewEncoder(writer).Encode(map[string]any{"code": code, "message": message})
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address and port; port 0 takes a free one")
	flag.Parse()
	// From the environment, since a command line can be read by every user of the machine.
	key := os.Getenv("FRAMEHOOK_CALLBACK_KEY")
	if key == "" {
		log.Fatal("FRAMEHOOK_CALLBACK_KEY is not set")
	}
	secret, err := webhookSecret(key)
	if err != nil {
		log.Fatal("FRAMEHOOK_CALLBACK_KEY begins with whsec_ and is not base64 from there")
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s/\n", listener.Addr())
	handler := &receiver{key: key, secret: secret, recent: recent{known: map[string]bool{}}}
	server := http.Server{Handler: handler, ReadTimeout: requestPatience}
	log.Fatal(server.Serve(listener))
}
