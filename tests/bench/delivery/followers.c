/*
 * Thousands of clients that follow server-sent events: what came, when, and what did not.
 *
 *     followers PORT FOLLOWERS AT_ONCE LAST MEASURE_FROM CATCH_UP_TO
 *
 * FOLLOWERS is a file, a line for each: `<path> <cursor> <next> <cursor after> <next after>`. It
 * asks for `path` with the `Last-Event-ID` `cursor` (`-`: none) and expects token number `next`
 * first; AT_ONCE connections are opened at a time. SIGUSR1 cuts all of them and has all come back
 * at once with what stands in the last two columns; who has token CATCH_UP_TO then is live again.
 * From then on whoever is sent away in order (200, then the end) comes again as an EventSource does:
 * after the `retry:` it was told, with the id it has. Before the cut an end is a loss.
 * When everybody has token LAST or nobody is connected any more, or on SIGTERM, it says what it saw
 * since the start or the cut.
 * Latencies are of tokens MEASURE_FROM..LAST.
 *
 * What is checked are the tokens themselves, `@<microseconds>:<number>;` (see writer.c): numbers
 * must follow each other without a hole or a repeat, joined in one frame or not, and where frames
 * have ids `<epoch>-<seq>`, these must rise, and end in the number of the frame's last token.
 * What it prints are lines of JSON.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

enum {
    ADDRESSES = 16, /* loopback addresses we speak from: each has its own ports */
    EVENTS = 512,
    READ_MAX = 1 << 18,
    RETRY_US = 1000000, /* where the server does not say */
    LOOK_MS = 5,        /* how often those that wait are looked at */
};

typedef enum { ABSENT, HEAD, BODY, OVER } phase_t;
typedef enum { SIZE, DATA, AFTER_DATA } chunk_t;

typedef struct {
    char *path, *cursor, *cursor_after;
    uint64_t next, next_after;
    int fd;
    phase_t phase;
    int is_chunked;
    chunk_t chunk;
    uint64_t chunk_left;
    char *held; /* an unfinished head or line */
    size_t held_size, held_room;
    uint64_t epoch, seq; /* of the last frame that had an id */
    uint64_t frame_epoch, frame_seq, frame_tokens, frame_last;
    int has_id;
    int was_ready, is_caught_up;
    int64_t retry_us, back_at; /* as an EventSource has it; 0: it need not come back */
} follower;

static follower *all;
static size_t count, ready, opened, connected, in_flight, at_once, complete, refused, lost;
static size_t waiting, came_again;
static uint64_t last, measure_from, catch_up_to;
static uint64_t tokens, frames, bytes, missing, duplicates, wrong_ids;
static int poller, port, is_storm;
static int64_t began_at, ready_at, caught_up_at, last_token_at;
static size_t caught_up;
static histogram latency[2], catching_up;
static uint64_t turn_at; /* tokens before it count for the first half */

static void die(const char *what) {
    fprintf(stderr, "followers: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- tokens, lines, frames ------------------------------------------------------------------ */

static void take_token(follower *f, int64_t sent, uint64_t number, int64_t now) {
    tokens++;
    f->frame_tokens++;
    f->frame_last = number;
    if (number < f->next) {
        duplicates++;
        return;
    }
    missing += number - f->next;
    f->next = number + 1;
    last_token_at = now;
    if (number >= measure_from) histogram_add(&latency[number >= turn_at], now - sent);
    if (number == last) complete++;
    if (is_storm && !f->is_caught_up && number >= catch_up_to) {
        f->is_caught_up = 1;
        caught_up++;
        caught_up_at = now;
        histogram_add(&catching_up, now - began_at);
        if (caught_up == count) {
            printf("{\"event\": \"caught_up\", \"ms\": %.1f}\n", (double)(now - began_at) / 1e3);
            fflush(stdout);
        }
    }
}

static uint64_t number_at(const char **at, const char *end) {
    uint64_t n = 0;
    while (*at < end && isdigit((unsigned char)**at)) n = n * 10 + (uint64_t)(*(*at)++ - '0');
    return n;
}

static void take_line(follower *f, const char *line, const char *end, int64_t now) {
    if (end > line && end[-1] == '\r') end--;
    if (line == end) { /* the frame is whole */
        if (f->has_id && f->frame_tokens) {
            int rises = f->frame_epoch > f->epoch ||
                        (f->frame_epoch == f->epoch && f->frame_seq > f->seq);
            if (!rises || f->frame_seq != f->frame_last) wrong_ids++;
            f->epoch = f->frame_epoch;
            f->seq = f->frame_seq;
        }
        if (f->frame_tokens) frames++;
        f->has_id = 0;
        f->frame_tokens = 0;
    } else if (!strncmp(line, "id: ", 4)) {
        const char *at = line + 4;
        f->frame_epoch = number_at(&at, end);
        if (at < end) at++;
        f->frame_seq = number_at(&at, end);
        f->has_id = 1;
    } else if (!strncmp(line, "retry: ", 7)) {
        const char *at = line + 7;
        f->retry_us = (int64_t)number_at(&at, end) * 1000;
    } else if (!strncmp(line, "data:", 5)) {
        const char *at = line;
        while ((at = memchr(at, '@', (size_t)(end - at)))) {
            at++;
            int64_t sent = (int64_t)number_at(&at, end);
            if (at == end || *at++ != ':') continue;
            uint64_t number = number_at(&at, end);
            if (at < end && *at == ';') take_token(f, sent, number, now);
        }
    }
}

static void hold(follower *f, const char *data, size_t size) {
    /* One more than is there: what is compared with `strncmp` ends with a NUL. */
    if (f->held_size + size + 1 > f->held_room) {
        f->held_room = f->held_size + size + 512;
        f->held = realloc(f->held, f->held_room);
    }
    memcpy(f->held + f->held_size, data, size);
    f->held_size += size;
    f->held[f->held_size] = 0;
}

static void take_body(follower *f, const char *data, size_t size, int64_t now) {
    const char *end = data + size, *stop;
    while ((stop = memchr(data, '\n', (size_t)(end - data)))) {
        if (f->held_size) {
            hold(f, data, (size_t)(stop - data));
            take_line(f, f->held, f->held + f->held_size, now);
            f->held_size = 0;
        } else {
            take_line(f, data, stop, now);
        }
        data = stop + 1;
    }
    if (data < end) hold(f, data, (size_t)(end - data));
}

/* --- HTTP ----------------------------------------------------------------------------------- */

static void close_follower(follower *f) {
    if (f->fd >= 0) {
        close(f->fd);
        connected--;
    }
    f->fd = -1;
    f->phase = OVER;
    free(f->held);
    f->held = NULL;
    f->held_size = f->held_room = 0;
}

/* Undo the chunks, in place; what a chunk holds is handed on as it comes. */
static int take_chunks(follower *f, const char *data, size_t size, int64_t now) {
    const char *end = data + size;
    while (data < end) {
        if (f->chunk == SIZE) {
            if (isxdigit((unsigned char)*data)) {
                int digit = isdigit((unsigned char)*data) ? *data - '0' : (*data | 32) - 'a' + 10;
                f->chunk_left = f->chunk_left * 16 + (uint64_t)digit;
            } else if (*data == '\n') {
                if (f->chunk_left == 0) return -1;
                f->chunk = DATA;
            }
            data++;
        } else if (f->chunk == DATA) {
            size_t here = (size_t)(end - data);
            if (here > f->chunk_left) here = f->chunk_left;
            take_body(f, data, here, now);
            data += here;
            f->chunk_left -= here;
            if (f->chunk_left == 0) f->chunk = AFTER_DATA;
        } else if (*data++ == '\n') {
            f->chunk = SIZE;
        }
    }
    return 0;
}

static void is_ready(follower *f, int64_t now) {
    in_flight--;
    if (f->was_ready) return;
    f->was_ready = 1;
    ready++;
    if (ready + refused == count) ready_at = now;
}

static int take(follower *f, const char *data, size_t size, int64_t now) {
    bytes += size;
    if (f->phase == HEAD) {
        hold(f, data, size);
        char *stop = strstr(f->held, "\r\n\r\n");
        if (!stop) return 0;
        if (strncmp(f->held, "HTTP/1.1 200", 12)) {
            if (refused++ == 0) fprintf(stderr, "followers: refused: %.200s\n", f->held);
            in_flight--;
            return -1;
        }
        *stop = 0;
        f->is_chunked = strcasestr(f->held, "\r\ntransfer-encoding: chunked") != NULL;
        f->phase = BODY;
        f->chunk = SIZE;
        f->chunk_left = 0;
        is_ready(f, now);
        char *rest = f->held;
        size_t rest_size = f->held_size - (size_t)(stop + 4 - f->held);
        f->held = NULL;
        f->held_size = f->held_room = 0;
        int ended = rest_size ? (f->is_chunked ? take_chunks(f, stop + 4, rest_size, now)
                                               : (take_body(f, stop + 4, rest_size, now), 0))
                              : 0;
        free(rest);
        return ended;
    }
    if (f->is_chunked) return take_chunks(f, data, size, now);
    take_body(f, data, size, now);
    return 0;
}

static void open_follower(size_t number) {
    follower *f = &all[number];
    f->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (f->fd < 0) die("socket");
    int on = 1;
    setsockopt(f->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in from = {.sin_family = AF_INET}, to = from;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number % ADDRESSES));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)port);
    if (bind(f->fd, (struct sockaddr *)&from, sizeof from)) die("bind");
    if (connect(f->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
    struct epoll_event e = {.events = EPOLLOUT, .data.u64 = number};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, f->fd, &e)) die("epoll_ctl");
    f->phase = ABSENT;
    connected++;
    in_flight++;
}

static void ask(size_t number) {
    follower *f = &all[number];
    char request[700];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n",
                        f->path, port);
    if (f->epoch) /* it comes again with what it has */
        size += snprintf(request + size, sizeof request - (size_t)size,
                         "Last-Event-ID: %" PRIu64 "-%" PRIu64 "\r\n", f->epoch, f->seq);
    else if (strcmp(f->cursor, "-"))
        size += snprintf(request + size, sizeof request - (size_t)size, "Last-Event-ID: %s\r\n",
                         f->cursor);
    size += snprintf(request + size, sizeof request - (size_t)size, "\r\n");
    if (send(f->fd, request, (size_t)size, MSG_NOSIGNAL) != size) {
        refused++;
        in_flight--;
        close_follower(f);
        return;
    }
    f->phase = HEAD;
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = number};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, f->fd, &e)) die("epoll_ctl");
}

static void read_follower(follower *f) {
    static char buffer[READ_MAX + 1];
    ssize_t got = recv(f->fd, buffer, READ_MAX, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    int64_t now = now_us();
    if (got > 0) {
        buffer[got] = 0;
        if (take(f, buffer, (size_t)got, now) == 0) return;
    }
    if (f->phase == HEAD && got <= 0) {
        refused++;
        in_flight--;
    } else if (f->phase == BODY && f->next <= last) { /* who has everything may be told so */
        if (is_storm) {
            f->back_at = now + (f->retry_us ? f->retry_us : RETRY_US);
            waiting++;
            came_again++;
        } else {
            lost++;
        }
    }
    close_follower(f);
}

static void bring_back(void) {
    int64_t now = now_us();
    for (size_t i = 0; i < count && waiting; i++) {
        if (all[i].back_at && all[i].back_at <= now) {
            all[i].back_at = 0;
            waiting--;
            open_follower(i);
        }
    }
}

/* --- what is told --------------------------------------------------------------------------- */

static void open_more(void) {
    while (opened < count && in_flight < at_once) open_follower(opened++);
}

static void say_ready(void) {
    printf("{\"event\": \"ready\", \"ready\": %zu, \"refused\": %zu, \"ms\": %.1f}\n", ready,
           refused, (double)(ready_at - began_at) / 1e3);
    fflush(stdout);
}

static void cut_all(void) {
    /* What was heard until now is no part of what is measured. */
    for (size_t i = 0; i < count; i++) {
        follower *f = &all[i];
        close_follower(f);
        f->cursor = f->cursor_after;
        f->next = f->next_after;
        f->epoch = f->seq = f->frame_tokens = 0;
        f->has_id = f->was_ready = 0;
        f->retry_us = f->back_at = 0;
    }
    waiting = came_again = 0;
    tokens = frames = bytes = missing = duplicates = wrong_ids = 0;
    ready = opened = in_flight = refused = lost = complete = 0;
    memset(latency, 0, sizeof latency);
    ready_at = 0;
    is_storm = 1;
    at_once = count;
    began_at = now_us();
    open_more();
}

static void report(void) {
    /* What nobody sent any more is missing too. */
    for (size_t i = 0; i < count; i++)
        if (all[i].next <= last) missing += last + 1 - all[i].next;
    static histogram whole;
    whole = latency[0];
    whole.count += latency[1].count;
    if (latency[1].max > whole.max) whole.max = latency[1].max;
    for (int i = 0; i < BUCKETS; i++) whole.buckets[i] += latency[1].buckets[i];
    printf("{\"event\": \"report\", \"followers\": %zu, \"ready\": %zu, \"refused\": %zu, "
           "\"lost\": %zu, \"came_again\": %zu, \"complete\": %zu, \"tokens\": %" PRIu64 ", \"frames\": %" PRIu64
           ", \"bytes\": %" PRIu64 ", \"missing\": %" PRIu64 ", \"duplicates\": %" PRIu64
           ", \"wrong_ids\": %" PRIu64 ", \"ready_ms\": %.1f, \"caught_up\": %zu, "
           "\"caught_up_ms\": %.1f, \"last_token_at\": %" PRId64 ", \"cpu_s\": %.3f, ",
           count, ready, refused, lost, came_again, complete, tokens, frames, bytes, missing, duplicates,
           wrong_ids, (double)(ready_at - began_at) / 1e3, caught_up,
           (double)(caught_up_at - began_at) / 1e3, last_token_at, cpu_seconds());
    histogram_print(stdout, "latency_us", &whole);
    printf(", ");
    histogram_print(stdout, "first_half_us", &latency[0]);
    printf(", ");
    histogram_print(stdout, "second_half_us", &latency[1]);
    printf(", ");
    histogram_print(stdout, "catching_up_us", &catching_up);
    printf("}\n");
    fflush(stdout);
}

static void read_followers(const char *file_name) {
    FILE *file = fopen(file_name, "r");
    if (!file) die(file_name);
    char path[301], cursor[101], after[101];
    uint64_t next, next_after;
    while (fscanf(file, "%300s %100s %" SCNu64 " %100s %" SCNu64, path, cursor, &next, after,
                  &next_after) == 5) {
        if ((count & (count + 1)) == 0) all = realloc(all, sizeof *all * (2 * count + 2));
        all[count++] = (follower){.path = strdup(path), .cursor = strdup(cursor), .next = next,
                                  .cursor_after = strdup(after), .next_after = next_after, .fd = -1};
    }
    fclose(file);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: followers PORT FOLLOWERS AT_ONCE LAST MEASURE_FROM CATCH_UP_TO\n");
        return 2;
    }
    port = atoi(argv[1]);
    read_followers(argv[2]);
    at_once = strtoull(argv[3], NULL, 10);
    last = strtoull(argv[4], NULL, 10);
    measure_from = strtoull(argv[5], NULL, 10);
    catch_up_to = strtoull(argv[6], NULL, 10);
    turn_at = measure_from + (last - measure_from) / 2;

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int told = signalfd(-1, &signals, SFD_NONBLOCK);
    poller = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = UINT64_MAX}, events[EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, told, &e);

    int has_said_ready = 0;
    began_at = now_us();
    open_more();
    while (complete < count && (opened < count || connected || waiting)) {
        int n = epoll_wait(poller, events, EVENTS, waiting ? LOOK_MS : -1);
        for (int i = 0; i < n; i++) {
            size_t number = events[i].data.u64;
            if (number == UINT64_MAX) {
                struct signalfd_siginfo info;
                if (read(told, &info, sizeof info) != sizeof info) continue;
                if (info.ssi_signo == SIGTERM) goto end;
                cut_all();
                has_said_ready = 0;
                break; /* what else came belongs to sockets that are closed */
            }
            follower *f = &all[number];
            if (f->fd < 0) continue;
            if (f->phase == ABSENT) ask(number);
            else read_follower(f);
        }
        if (opened < count) open_more();
        if (waiting) bring_back();
        if (!has_said_ready && ready + refused == count) {
            has_said_ready = 1;
            if (!ready_at) ready_at = now_us();
            say_ready();
        }
    }
end:
    report();
    return 0;
}
