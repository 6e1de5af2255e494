// Many readers in one thread that check what they read: every message once and in order, on every connection.
//
// sink [-t] HOST PORT COUNT MESSAGES SECONDS HEAD_FILE
//   opens COUNT connections (in bunches of 256), sends the head in HEAD_FILE on each (a first "%d" becomes the number of the connection),
//   waits for the end of each answer's head, prints "ready", and reads until every connection has seen MESSAGES messages or
//   SECONDS have passed. -t speaks TLS, and trusts anybody. MESSAGES 0 opens the connections, prints "ready", and holds them until stdin ends.
//
// It looks into the stream for {"n":<number> and "at":<CLOCK_MONOTONIC, ns>, whatever stands around them, so one reader serves
// WebSocket, SSE and chunked answers. Numbers of a connection must grow by one. It prints one JSON object at the end.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUNCH 256
#define SLOTS (64 * 32)

struct reader {
    int fd, is_open, has_head, ends, begun; // ends: how much of "\r\n\r\n" was seen
    SSL *tls;
    long last, first, seen, holes, doubles;
    char tail[64]; // the end of the last read, where a number may have been cut
    int tail_bytes;
};

static uint64_t slots[SLOTS], samples;
static int64_t slowest_ns, first_ns, last_ns;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

// 32 linear steps in each power of two: within 3 %.
static int slot_of(uint64_t ns) {
    if (ns < 32) return (int)ns;
    int power = 63 - __builtin_clzll(ns);
    int slot = (power - 4) * 32 + (int)((ns >> (power - 5)) & 31);
    return slot < SLOTS ? slot : SLOTS - 1;
}

static double slot_ms(int slot) {
    if (slot < 32) return slot / 1e6;
    int power = slot / 32 + 4;
    return (double)((uint64_t)(32 + slot % 32) << (power - 5)) / 1e6;
}

static double quantile_ms(double share) {
    uint64_t rank = (uint64_t)((double)samples * share), passed = 0;
    for (int i = 0; i < SLOTS; i++)
        if ((passed += slots[i]) > rank) return slot_ms(i);
    return (double)slowest_ns / 1e6;
}

static void saw(struct reader *r, long number, int64_t at, int64_t now) {
    if (!r->first) r->first = number;
    else if (number == r->last + 1) {
    } else if (number <= r->last) r->doubles++;
    else r->holes++;
    if (number > r->last) r->last = number;
    r->seen++;
    if (at > 0 && now >= at) {
        if (now - at > slowest_ns) slowest_ns = now - at;
        slots[slot_of((uint64_t)(now - at))]++;
        samples++;
    }
    if (!first_ns) first_ns = now;
    last_ns = now;
}

// Messages whose number and time are whole; keeps what may be the beginning of one.
static void scan(struct reader *r, char *raw, int size, int64_t now) {
    char *at = raw, *end = raw + size, *kept = NULL;
    while ((at = memmem(at, (size_t)(end - at), "{\"n\":", 5))) {
        char *stop = memchr(at, ',', (size_t)(end - at));
        char *second = stop ? memchr(stop + 1, ',', (size_t)(end - stop - 1)) : NULL;
        if (!second) {
            kept = at;
            break;
        }
        saw(r, strtol(at + 5, NULL, 10), strtoll(stop + 6, NULL, 10), now);
        at = second;
    }
    if (!kept) kept = end - (size > 4 ? 4 : size);
    r->tail_bytes = (int)(end - kept);
    if (r->tail_bytes > (int)sizeof r->tail) r->tail_bytes = 0; // no message of ours is cut so
    memcpy(r->tail, kept, (size_t)r->tail_bytes);
}

static int receive(struct reader *r, char *into, int room) {
    if (r->tls) {
        int got = SSL_read(r->tls, into, room);
        if (got > 0) return got;
        int why = SSL_get_error(r->tls, got);
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? -1 : 0;
    }
    ssize_t got = recv(r->fd, into, (size_t)room, MSG_DONTWAIT);
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? -1 : got < 0 ? 0 : (int)got;
}

// Answers pings. Messages here are ASCII and no frame is 137 bytes long, so the first byte of a ping is seen wherever it stands.
static void answer_pings(struct reader *r, const char *raw, int size) {
    for (const char *at = raw; (at = memchr(at, 0x89, (size_t)(raw + size - at))); at++) {
        int length = at + 1 < raw + size ? (unsigned char)at[1] : 255;
        if (length > 125 || at + 2 + length > raw + size) return;
        char pong[131] = {(char)0x8a, (char)(0x80 | length)}; // a mask of zeros leaves the payload as it is
        memcpy(pong + 6, at + 2, (size_t)length);
        if (r->tls) SSL_write(r->tls, pong, length + 6);
        else if (send(r->fd, pong, (size_t)length + 6, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return;
    }
}

int main(int argc, char **argv) {
    int with_tls = 0, option;
    while ((option = getopt(argc, argv, "t")) != -1) with_tls |= option == 't';
    if (argc - optind != 6) {
        fprintf(stderr, "usage: sink [-t] HOST PORT COUNT MESSAGES SECONDS HEAD_FILE\n");
        return 2;
    }
    const char *host = argv[optind];
    int port = atoi(argv[optind + 1]), count = atoi(argv[optind + 2]);
    long messages = atol(argv[optind + 3]);
    double seconds = atof(argv[optind + 4]);
    char form[4096], head[4352];
    FILE *file = fopen(argv[optind + 5], "rb");
    if (!file) die(argv[optind + 5]);
    form[fread(form, 1, sizeof form - 1, file)] = 0;
    fclose(file);

    SSL_CTX *trust = NULL;
    if (with_tls) {
        trust = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_verify(trust, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_mode(trust, SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_session_cache_mode(trust, SSL_SESS_CACHE_OFF);
    }
    struct reader *readers = calloc((size_t)count, sizeof *readers);
    int poll = epoll_create1(0), ready = 0, opened = 0, closed = 0, done = 0, refused = 0;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &at.sin_addr);
    static char buffer[262144 + 64];
    int64_t start = now_ns(), limit = start + (int64_t)(seconds * 1e9), ready_ns = 0;
    struct epoll_event events[1024];
    int is_websocket = strstr(form, "websocket") != NULL;
    while (now_ns() < limit) {
        while (opened < count && opened - ready - closed < BUNCH) {
            struct reader *r = &readers[opened];
            int yes = 1;
            r->fd = socket(AF_INET, SOCK_STREAM, 0);
            if (r->fd < 0) die("socket");
            // Beyond 28,000 connections one source address has no ports left, and descriptors end before.
            struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001u + (uint32_t)(opened / 10000))};
            bind(r->fd, (struct sockaddr *)&from, sizeof from);
            if (connect(r->fd, (struct sockaddr *)&at, sizeof at)) die("connect");
            setsockopt(r->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            if (trust) {
                r->tls = SSL_new(trust);
                SSL_set_fd(r->tls, r->fd);
                if (SSL_connect(r->tls) != 1) die("TLS");
            }
            int size = snprintf(head, sizeof head, form, opened);
            if ((r->tls ? SSL_write(r->tls, head, size) : (int)send(r->fd, head, (size_t)size, MSG_NOSIGNAL)) != size) die("send");
            fcntl(r->fd, F_SETFL, O_NONBLOCK);
            r->is_open = 1;
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = r};
            epoll_ctl(poll, EPOLL_CTL_ADD, r->fd, &event);
            opened++;
        }
        int found = epoll_wait(poll, events, 1024, 20);
        int64_t now = now_ns();
        for (int i = 0; i < found; i++) {
            struct reader *r = events[i].data.ptr;
            for (;;) {
                memcpy(buffer, r->tail, (size_t)r->tail_bytes);
                int got = receive(r, buffer + r->tail_bytes, 262144);
                if (got < 0) break;
                if (got == 0) {
                    epoll_ctl(poll, EPOLL_CTL_DEL, r->fd, NULL);
                    close(r->fd);
                    r->is_open = 0, closed++;
                    if (!r->has_head) refused++;
                    break;
                }
                char *from = buffer + r->tail_bytes;
                if (is_websocket && r->has_head) answer_pings(r, from, got);
                if (!r->has_head) {
                    for (; got && r->ends < 4; from++, got--) r->ends = *from == "\r\n\r\n"[r->ends] ? r->ends + 1 : *from == '\r';
                    if (r->ends < 4) continue;
                    r->has_head = 1, ready++;
                    r->tail_bytes = 0;
                    scan(r, from, got, now);
                } else {
                    long before = r->seen;
                    scan(r, buffer, got + r->tail_bytes, now);
                    if (messages && before < messages && r->seen >= messages) done++;
                }
                if (!r->tls) break;
            }
        }
        if (!ready_ns && ready + closed >= count) {
            ready_ns = now_ns();
            printf("ready %d %.6f\n", ready, (double)(ready_ns - start) / 1e9);
            fflush(stdout);
            if (!messages) fcntl(0, F_SETFL, O_NONBLOCK);
        }
        if (messages && done + closed >= count) break;
        char byte;
        if (!messages && ready_ns && read(0, &byte, 1) == 0) return 0;
    }
    long seen = 0, holes = 0, doubles = 0, least = -1, most = 0;
    for (int i = 0; i < count; i++) {
        struct reader *r = &readers[i];
        seen += r->seen, holes += r->holes, doubles += r->doubles;
        if (least < 0 || r->seen < least) least = r->seen;
        if (r->seen > most) most = r->seen;
    }
    printf("{\"connections\": %d, \"closed\": %d, \"refused\": %d, \"seen\": %ld, \"least\": %ld, \"most\": %ld, \"holes\": %ld, \"doubles\": %ld,"
           " \"span_s\": %.6f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, \"slowest_ms\": %.3f}\n",
           ready, closed, refused, seen, least, most, holes, doubles, (double)(last_ns - first_ns) / 1e9, quantile_ms(0.5),
           quantile_ms(0.99), quantile_ms(0.999), (double)slowest_ns / 1e6);
    return 0;
}
