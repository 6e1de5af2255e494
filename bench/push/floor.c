// The least a fan-out can cost: one thread that calls send() for every connection and every message, and nothing else.
//
// floor PORT COUNT FRAME_BYTES      accepts COUNT connections, answers whatever head they send with 101, and reads
//                                   lines from stdin: "MESSAGES PER_SECOND" sends so many, "q" ends it.
// Each frame is a WebSocket text frame whose payload begins with {"n":<number>, so that readers can check the order.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int fd, const char *raw, size_t left) {
    while (left) {
        ssize_t sent = send(fd, raw, left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            raw += sent;
            left -= (size_t)sent;
        } else if (errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
        } else if (errno != EINTR) {
            die("send");
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: floor PORT COUNT FRAME_BYTES\n");
        return 2;
    }
    int port = atoi(argv[1]), count = atoi(argv[2]), size = atoi(argv[3]), yes = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) die("listen");
    int *fds = calloc((size_t)count, sizeof *fds);
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    for (int i = 0; i < count; i++) {
        if ((fds[i] = accept(listener, NULL, NULL)) < 0) die("accept");
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        char head[4096];
        size_t got = 0;
        while (got < sizeof head && !memmem(head, got, "\r\n\r\n", 4)) {
            ssize_t part = recv(fds[i], head + got, sizeof head - got, 0);
            if (part <= 0) die("recv");
            got += (size_t)part;
        }
        send_all(fds[i], answer, sizeof answer - 1);
    }
    char line[128], *frame = malloc((size_t)size + 8);
    long number = 0;
    while (fgets(line, sizeof line, stdin) && line[0] != 'q') {
        long messages = 0;
        double per_s = 0;
        sscanf(line, "%ld %lf", &messages, &per_s);
        int64_t start = now_ns();
        for (long m = 0; m < messages; m++) {
            int64_t due = per_s > 0 ? start + (int64_t)((double)m * 1e9 / per_s) : 0;
            for (int64_t left; (left = due - now_ns()) > 0;) {
                struct timespec nap = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
                nanosleep(&nap, NULL);
            }
            int payload = size - 4;
            frame[0] = (char)0x81, frame[1] = 126, frame[2] = (char)(payload >> 8), frame[3] = (char)payload;
            memset(frame + 4, ' ', (size_t)payload);
            int said = snprintf(frame + 4, (size_t)payload, "{\"n\":%ld,\"at\":%lld", ++number, (long long)now_ns());
            frame[4 + said] = ',';
            frame[size - 1] = '}';
            for (int i = 0; i < count; i++) send_all(fds[i], frame, (size_t)size);
        }
        puts("sent");
        fflush(stdout);
    }
    return 0;
}
