// How soon many clients go on elsewhere when their gateway dies, and whether any of them missed something or got it twice.
//
// recover cold|standby PORT_A PORT_B COUNT
//   opens COUNT WebSockets to A, subscribed to "bench" (and COUNT quiet ones to B, for standby), and prints "ready". Then it reads lines:
//   "expect N"        waits until every client has seen N messages, and prints "seen"
//   "kill PID SIGNAL N"  sends the signal, and waits until every client has seen N messages by way of B; prints one JSON object.
// A client goes to B when its connection ends, or after 150 ms without a byte (it asks for a beat each 50 ms if it has a standby).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SILENT_NS 150000000LL
#define KEPT 512

struct client;
struct line { // one connection
    struct client *of;
    int fd, is_b, ends, is_up, wants_head;
    int64_t heard;
    char kept[KEPT];
    int kept_bytes;
};
struct client {
    struct line a, b;
    char epoch[80];
    long seq, seen, holes, doubles, gaps, tries;
    int64_t back;
    int has_moved;
};

static int poll_fd, count, port_b, with_standby, up;
static struct client *clients;
static char buffer[65536 + KEPT];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void base64(char *into, const char *from) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    size_t left = strlen(from);
    for (; left; left -= left < 3 ? left : 3, from += 3) {
        uint32_t group = (uint32_t)(uint8_t)from[0] << 16;
        if (left > 1) group |= (uint32_t)(uint8_t)from[1] << 8;
        if (left > 2) group |= (uint8_t)from[2];
        for (int i = 0; i < (left > 2 ? 4 : (int)left + 1); i++) *into++ = letters[group >> (18 - 6 * i) & 63];
    }
    *into = 0;
}

static void dial(struct line *line, int port, const char *hello) {
    int yes = 1;
    line->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (line->fd < 0) die("socket");
    setsockopt(line->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(line->fd, (struct sockaddr *)&at, sizeof at) && errno != EINPROGRESS) die("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = line};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, line->fd, &event);
    line->ends = line->is_up = line->kept_bytes = 0;
    line->wants_head = 1;
    line->heard = now_ns();
    (void)hello;
}

static void hello_of(struct client *c, int is_b, char *into) {
    char place[160] = "null";
    if (c->seq) snprintf(place, sizeof place, "{\"epoch\":\"%s\",\"seq\":%ld}", c->epoch, c->seq);
    int is_quiet = is_b && with_standby;
    sprintf(into, "{\"type\":\"hello\",\"version\":1,\"channels\":{\"bench\":%s}%s%s}", place, is_quiet ? ",\"standby\":true" : "",
            with_standby && !is_b ? ",\"beat_s\":0.05" : "");
}

static void send_head(struct line *line) {
    char hello[512], coded[1024], head[2048];
    hello_of(line->of, line->is_b, hello);
    base64(coded, hello);
    int size = snprintf(head, sizeof head,
                        "GET /v1/stream?hello=%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: budao.v1.json\r\n\r\n",
                        coded);
    if (send(line->fd, head, (size_t)size, MSG_NOSIGNAL) != size) die("send");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = line};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, line->fd, &event);
    line->wants_head = 0;
}

static void drop(struct line *line) {
    if (line->fd >= 0) {
        close(line->fd);
        line->fd = -1;
        if (line->is_up) up--;
        line->is_up = 0;
    }
}

static void move(struct client *c) {
    drop(&c->a);
    c->has_moved = 1;
    if (!with_standby) {
        c->tries++;
        dial(&c->b, port_b, NULL);
        return;
    }
    char text[400];
    unsigned char frame[512] = {0x81};
    int size = snprintf(text, sizeof text, "{\"type\":\"standby\",\"ref\":1,\"channels\":{\"bench\":{\"epoch\":\"%s\",\"seq\":%ld}}}", c->epoch, c->seq);
    int at = 2;
    frame[1] = (unsigned char)(0x80 | (size < 126 ? size : 126));
    if (size >= 126) frame[2] = (unsigned char)(size >> 8), frame[3] = (unsigned char)size, at = 4;
    at += 4; // a key of zeros leaves the payload as it is
    memcpy(frame + at, text, (size_t)size);
    if (send(c->b.fd, frame, (size_t)(at + size), MSG_NOSIGNAL) < 0) die("send");
    c->b.heard = now_ns();
}

// Answers pings. Messages here are ASCII and no frame is 137 bytes long, so the first byte of a ping is seen wherever it stands.
static void answer_pings(struct line *line, const char *raw, int size) {
    for (const char *at = raw; (at = memchr(at, 0x89, (size_t)(raw + size - at))); at++) {
        int length = at + 1 < raw + size ? (unsigned char)at[1] : 255;
        if (length > 125 || at + 2 + length > raw + size) return;
        char pong[131] = {(char)0x8a, (char)(0x80 | length)};
        memcpy(pong + 6, at + 2, (size_t)length);
        if (send(line->fd, pong, (size_t)length + 6, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return;
    }
}

// Whole msg and gap frames in what was read; keeps the beginning of one that was cut.
static void scan(struct line *line, int size, int64_t now, long expected) {
    struct client *c = line->of;
    char *at = buffer, *end = buffer + size, *kept = NULL;
    *end = 0;
    for (char *found; (found = memmem(at, (size_t)(end - at), "{\"type\":\"", 9)); at = found + 9) {
        if (end - found < 14 || (found[9] == 'm' && !memmem(found, (size_t)(end - found), "\"at\":", 5))) {
            kept = found;
            break;
        }
        if (!strncmp(found + 9, "gap", 3)) c->gaps++;
        if (strncmp(found + 9, "msg", 3)) continue;
        char *epoch = memmem(found, (size_t)(end - found), "\"epoch\":\"", 9), *seq = memmem(found, (size_t)(end - found), "\"seq\":", 6);
        if (!epoch || !seq) die("a frame of another form");
        long number = strtol(seq + 6, NULL, 10);
        if (c->seq && number <= c->seq) c->doubles++;
        else if (c->seq && number != c->seq + 1) c->holes++;
        if (number > c->seq) c->seq = number;
        size_t length = strcspn(epoch + 9, "\"");
        if (length < sizeof c->epoch) memcpy(c->epoch, epoch + 9, length), c->epoch[length] = 0;
        if (++c->seen == expected && c->has_moved && !c->back) c->back = now;
    }
    if (!kept) kept = end - (size > 8 ? 8 : size);
    line->kept_bytes = (int)(end - kept);
    if (line->kept_bytes > KEPT) line->kept_bytes = 0;
    memcpy(line->kept, kept, (size_t)line->kept_bytes);
}

static int enough(long expected, int by_b) {
    for (int i = 0; i < count; i++)
        if (clients[i].seen < expected || (by_b && !clients[i].back)) return 0;
    return 1;
}

static void run(int wanted_up, long expected, int by_b, double seconds) {
    int64_t limit = now_ns() + (int64_t)(seconds * 1e9), looked = 0;
    struct epoll_event events[512];
    while (now_ns() < limit) {
        int found = epoll_wait(poll_fd, events, 512, 5);
        int64_t now = now_ns();
        for (int i = 0; i < found; i++) {
            struct line *line = events[i].data.ptr;
            if (line->fd < 0) continue;
            if (line->wants_head) {
                if (events[i].events & (EPOLLERR | EPOLLHUP)) { // its queue was full: once more
                    drop(line);
                    line->of->tries++;
                    dial(line, line->is_b ? port_b : 0, NULL);
                } else if (events[i].events & EPOLLOUT) {
                    send_head(line);
                }
                continue;
            }
            memcpy(buffer, line->kept, (size_t)line->kept_bytes);
            ssize_t got = recv(line->fd, buffer + line->kept_bytes, 65535, 0);
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (got <= 0) {
                struct client *c = line->of;
                if (line->is_b) {
                    drop(line);
                    if (c->has_moved && !with_standby) c->tries++, dial(line, port_b, NULL);
                } else if (!c->has_moved) {
                    move(c);
                }
                continue;
            }
            line->heard = now;
            int size = line->kept_bytes + (int)got;
            if (!line->is_up) {
                char *end = memmem(buffer, (size_t)size, "\r\n\r\n", 4);
                if (!end || strncmp(buffer, "HTTP/1.1 101", 12)) {
                    if (end) {
                        fprintf(stderr, "refused: %.*s\n", (int)strcspn(buffer, "\r"), buffer);
                        drop(line);
                        if (line->is_b) line->of->tries++, dial(line, port_b, NULL);
                    } else {
                        memcpy(line->kept, buffer, (size_t)(size < KEPT ? size : KEPT));
                        line->kept_bytes = size < KEPT ? size : KEPT;
                    }
                    continue;
                }
                line->is_up = 1, up++;
            }
            answer_pings(line, buffer + size - got, (int)got);
            scan(line, size, now, expected);
        }
        if (with_standby && by_b && now - looked > 5000000) {
            looked = now;
            for (int i = 0; i < count; i++)
                if (!clients[i].has_moved && now - clients[i].a.heard > SILENT_NS) move(&clients[i]);
        }
        if (wanted_up ? up >= wanted_up : enough(expected, by_b)) return;
    }
}

static int by_time(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: recover cold|standby PORT_A PORT_B COUNT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    with_standby = !strcmp(argv[1], "standby");
    int port_a = atoi(argv[2]);
    port_b = atoi(argv[3]), count = atoi(argv[4]);
    clients = calloc((size_t)count, sizeof *clients);
    poll_fd = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        struct client *c = &clients[i];
        c->a.of = c->b.of = c, c->b.is_b = 1, c->a.fd = c->b.fd = -1;
        dial(&c->a, port_a, NULL);
        if (with_standby) dial(&c->b, port_b, NULL);
        if (i % 64 == 63) run((i + 1) * (1 + with_standby), 0, 0, 20);
    }
    run(count * (1 + with_standby), 0, 0, 30);
    printf("ready %d\n", up);
    fflush(stdout);
    char line[200];
    while (fgets(line, sizeof line, stdin)) {
        long expected;
        int pid, number;
        if (sscanf(line, "expect %ld", &expected) == 1) {
            run(0, expected, 0, 30);
            printf("seen %d\n", enough(expected, 0));
        } else if (sscanf(line, "kill %d %d %ld", &pid, &number, &expected) == 3) {
            for (int i = 0; i < count; i++) clients[i].a.heard = now_ns();
            int64_t start = now_ns();
            kill(pid, number);
            run(0, expected, 1, 60);
            double *times = calloc((size_t)count, sizeof *times);
            long holes = 0, doubles = 0, gaps = 0, tries = 0;
            int back = 0;
            for (int i = 0; i < count; i++) {
                struct client *c = &clients[i];
                holes += c->holes, doubles += c->doubles, gaps += c->gaps, tries += c->tries;
                if (c->back) times[back++] = (double)(c->back - start) / 1e6;
            }
            qsort(times, (size_t)back, sizeof *times, by_time);
            printf("{\"clients\": %d, \"back\": %d, \"holes\": %ld, \"doubles\": %ld, \"gaps\": %ld, \"tries\": %ld, \"times_ms\": [", count, back, holes,
                   doubles, gaps, tries);
            for (int i = 0; i < back; i++) printf("%s%.2f", i ? ", " : "", times[i]);
            printf("]}\n");
        }
        fflush(stdout);
    }
    return 0;
}
