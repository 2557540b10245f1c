/* A plain epoll sink: one read of at most 64 KiB for each wake-up, and the bytes are dropped.
 *
 * It answers the handshake, `connect`, `createStream` and `publish` by looking for these names in the first bytes, so
 * that the very same load generator drives it and every other server. After that it never looks at a byte.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "floor.h"

enum {
    READ_BYTES = 64 << 10,
    HELLO_BYTES = 1 + 1536, /* C0 and C1 (RTMP 1.0, 5.2) */
    /* Room for what a publisher says before its first picture: the handshake (3,073 bytes) and five commands of a few
     * hundred bytes. Who has not published by then is cut off. */
    OPENING_BYTES = 16 << 10,
    EVENTS = 256,
};

struct connection {
    int fd;
    /* NULL once the publisher has begun. */
    uint8_t *opening;
    size_t opening_bytes;
    /* How far commands have been looked for. */
    size_t searched;
    int greeted;
};

static uint8_t scratch[READ_BYTES];

int sink_listen(unsigned short *port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 4096) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        fail("listen on loopback: %s", strerror(errno));
    }
    *port = ntohs(address.sin_port);
    return listener;
}

static uint8_t *put_string(uint8_t *at, const char *text) {
    size_t length = strlen(text);
    *at++ = (uint8_t)(length >> 8);
    *at++ = (uint8_t)length;
    memcpy(at, text, length);
    return at + length;
}

/* Answers with a command of which the body fits one chunk of 128 bytes. `transaction` is eight bytes of an AMF0 number
 * as they came; `code` is a status code, or NULL to answer with the message stream id 1. */
static void answer(int fd, const char *name, const uint8_t *transaction, uint8_t message_stream, const char *code) {
    static const uint8_t one[8] = {0x3f, 0xf0};
    uint8_t message[12 + 128] = {0x03, 0, 0, 0, 0, 0, 0, 0x14, message_stream};
    uint8_t *at = message + 12;
    *at++ = 0x02;
    at = put_string(at, name);
    *at++ = 0x00;
    memcpy(at, transaction, 8);
    at += 8;
    *at++ = 0x05;
    if (code != NULL) {
        *at++ = 0x03;
        at = put_string(at, "level");
        *at++ = 0x02;
        at = put_string(at, "status");
        at = put_string(at, "code");
        *at++ = 0x02;
        at = put_string(at, code);
        memcpy(at, "\0\0\x09", 3);
        at += 3;
    } else {
        *at++ = 0x00;
        memcpy(at, one, 8);
        at += 8;
    }
    message[6] = (uint8_t)(at - message - 12);
    /* A new connection's send buffer has room for a hundred bytes. */
    if (write(fd, message, (size_t)(at - message)) < 0) fail("answer %s: %s", name, strerror(errno));
}

/* The transaction number behind the command called `name` at or after `*from`, or NULL while it has not come whole. A
 * command's name and transaction stand in its first chunk, so no chunk header ever parts them. */
static const uint8_t *find_command(const struct connection *peer, const char *name, size_t *from) {
    uint8_t pattern[32];
    pattern[0] = 0x02;
    uint8_t *end = put_string(pattern + 1, name);
    *end++ = 0x00;
    size_t length = (size_t)(end - pattern);
    const uint8_t *found = memmem(peer->opening + *from, peer->opening_bytes - *from, pattern, length);
    if (found == NULL || found + length + 8 > peer->opening + peer->opening_bytes) return NULL;
    *from = (size_t)(found - peer->opening) + length + 8;
    return found + length;
}

/* Whether the connection may go on. */
static int open_stream(struct connection *peer) {
    static const uint8_t zero[8];
    ssize_t got = read(peer->fd, peer->opening + peer->opening_bytes, OPENING_BYTES - peer->opening_bytes);
    if (got <= 0) return got < 0 && (errno == EAGAIN || errno == EINTR);
    peer->opening_bytes += (size_t)got;

    if (!peer->greeted && peer->opening_bytes >= HELLO_BYTES) {
        uint8_t hello[HELLO_BYTES + 1536] = {0x03};
        memcpy(hello + HELLO_BYTES, peer->opening + 1, 1536);
        if (write(peer->fd, hello, sizeof hello) != sizeof hello) return 0;
        peer->greeted = 1;
        peer->searched = HELLO_BYTES + 1536;
    }
    if (!peer->greeted || peer->opening_bytes <= peer->searched) return 1;

    const uint8_t *transaction;
    if ((transaction = find_command(peer, "connect", &peer->searched)) != NULL) {
        answer(peer->fd, "_result", transaction, 0, "NetConnection.Connect.Success");
    }
    if ((transaction = find_command(peer, "createStream", &peer->searched)) != NULL) {
        answer(peer->fd, "_result", transaction, 0, NULL);
    }
    if (find_command(peer, "publish", &peer->searched) != NULL) {
        answer(peer->fd, "onStatus", zero, 1, "NetStream.Publish.Start");
        free(peer->opening);
        peer->opening = NULL;
        return 1;
    }
    return peer->opening_bytes < OPENING_BYTES;
}

static void accept_all(int poller, int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *peer = calloc(1, sizeof *peer);
        if (peer == NULL || (peer->opening = malloc(OPENING_BYTES)) == NULL) fail("out of memory");
        peer->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) fail("watch a connection: %s", strerror(errno));
    }
}

void sink_run(int listener) {
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) != 0) fail("epoll: %s", strerror(errno));
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct connection *peer = events[i].data.ptr;
            if (peer == NULL) {
                accept_all(poller, listener);
                continue;
            }
            int alive;
            if (peer->opening != NULL) {
                alive = open_stream(peer);
            } else {
                ssize_t got = read(peer->fd, scratch, sizeof scratch);
                alive = got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
            }
            if (!alive) {
                close(peer->fd);
                free(peer->opening);
                free(peer);
            }
        }
    }
}
