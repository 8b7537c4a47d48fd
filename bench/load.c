/* load: drives one queue server from many connections, and says how many jobs a second went through it.
 *
 * usage: load PROTO PORT CONNS PIPELINE BODY_BYTES SECONDS QUEUES MODE
 *   PROTO  valqd, direct (the functions of baseline.lua, on Valkey itself) or beanstalk
 *   MODE   job: push, pop, ack; popack: take and acknowledge what is there
 *          batch: pop with COUNT and ack of as many ids in one command, PIPELINE messages at a time (valqd)
 *          block: every other connection waits in POP ... BLOCK and acknowledges, the others push; one push is let go for
 *          each message taken, so that most are pushed to workers that wait (valqd, PIPELINE 1)
 *   QUEUES how many; or TOTAL:ONCE, of which ONCE are used at a time, and after each job the next ONCE
 * Each connection sends PIPELINE commands of one kind, reads their replies, and goes on to the next kind. Connection c uses
 * queue c % QUEUES. Prints: jobs/s. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum kind { PUSH, POP, ACK };
enum { MAX_PIPELINE = 256, MAX_ID = 40 };

struct conn {
    int fd, queue, want, got, ids;
    enum kind kind;
    char id[MAX_PIPELINE][MAX_ID];
    char *in;
    size_t used, room;
};

static const char *proto, *mode;
static int conns, pipeline, body_bytes, queues, queues_at_once;
static char *body, *out;
static struct conn **resting; /* pushers (block) that wait to be let go */
static int resting_count;
static int pushes_allowed;
static long jobs;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what, const char *detail, int length) {
    fprintf(stderr, "load: %s: %.*s\n", what, length, detail);
    exit(1);
}

static int is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static size_t add_bulk(char *to, const char *text, int length) {
    int n = sprintf(to, "$%d\r\n", length);
    memcpy(to + n, text, length);
    memcpy(to + n + length, "\r\n", 2);
    return n + length + 2;
}

/* One command of a kind, appended at `to`; its length. */
static size_t command(struct conn *c, char *to, int i) {
    char queue[32], key[64];
    int q = sprintf(queue, "bench%d", c->queue);
    size_t n = 0;
    if (is(proto, "beanstalk")) {
        if (c->kind == PUSH) {
            n = sprintf(to, "put 0 0 3600 %d\r\n", body_bytes);
            memcpy(to + n, body, body_bytes);
            memcpy(to + n + body_bytes, "\r\n", 2);
            return n + body_bytes + 2;
        }
        return c->kind == POP ? sprintf(to, "reserve-with-timeout 0\r\n") : sprintf(to, "delete %s\r\n", c->id[i]);
    }
    if (is(proto, "direct")) {
        static const char *names[] = {"bench_push", "bench_pop", "bench_ack"}, *suffixes[] = {"m", "r", "i", "b"};
        n = sprintf(to, "*%d\r\n$5\r\nFCALL\r\n", c->kind == POP ? 7 : 8);
        n += add_bulk(to + n, names[c->kind], strlen(names[c->kind]));
        n += add_bulk(to + n, "4", 1);
        for (int k = 0; k < 4; k++) n += add_bulk(to + n, key, sprintf(key, "{%s}%s", queue, suffixes[k]));
    } else {
        static const char *names[] = {"VALQ.PUSH", "VALQ.POP", "VALQ.ACK"};
        n = sprintf(to, "*%d\r\n", c->kind == POP ? 2 : 3);
        n += add_bulk(to + n, names[c->kind], strlen(names[c->kind]));
        n += add_bulk(to + n, queue, q);
    }
    if (c->kind == PUSH) n += add_bulk(to + n, body, body_bytes);
    if (c->kind == ACK) n += add_bulk(to + n, c->id[i], strlen(c->id[i]));
    return n;
}

static size_t batch_command(struct conn *c, char *to) {
    char queue[32], text[16];
    int q = sprintf(queue, "bench%d", c->queue);
    size_t n;
    if (c->kind == PUSH) {
        n = sprintf(to, "*%d\r\n$10\r\nVALQ.MPUSH\r\n", 3 + pipeline);
        n += add_bulk(to + n, queue, q);
        n += add_bulk(to + n, text, sprintf(text, "%d", pipeline));
        for (int i = 0; i < pipeline; i++) n += add_bulk(to + n, body, body_bytes);
    } else if (c->kind == POP) {
        n = sprintf(to, "*4\r\n$8\r\nVALQ.POP\r\n");
        n += add_bulk(to + n, queue, q);
        n += add_bulk(to + n, "COUNT", 5);
        n += add_bulk(to + n, text, sprintf(text, "%d", pipeline));
    } else {
        n = sprintf(to, "*%d\r\n$8\r\nVALQ.ACK\r\n", 2 + c->ids);
        n += add_bulk(to + n, queue, q);
        for (int i = 0; i < c->ids; i++) n += add_bulk(to + n, c->id[i], strlen(c->id[i]));
    }
    return n;
}

static size_t blocking_pop(struct conn *c, char *to) {
    char queue[32];
    size_t n = sprintf(to, "*4\r\n$8\r\nVALQ.POP\r\n");
    n += add_bulk(to + n, queue, sprintf(queue, "bench%d", c->queue));
    return n + sprintf(to + n, "$5\r\nBLOCK\r\n$4\r\n9000\r\n");
}

static void send_round(struct conn *c) {
    size_t length = 0, sent = 0;
    int batch = is(mode, "batch");
    c->want = batch ? 1 : c->kind == ACK ? c->ids : pipeline;
    c->got = 0;
    if (c->kind == POP) c->ids = 0;
    if (batch) length = batch_command(c, out);
    else if (c->kind == POP && is(mode, "block")) length = blocking_pop(c, out);
    else for (int i = 0; i < c->want; i++) length += command(c, out + length, i);
    while (sent < length) {
        ssize_t n = write(c->fd, out + sent, length - sent);
        if (n <= 0) fail("write", strerror(errno), 80);
        sent += n;
    }
}

static void keep_id(struct conn *c, const char *text, int length) {
    if (c->ids < MAX_PIPELINE && length < MAX_ID) {
        memcpy(c->id[c->ids], text, length);
        c->id[c->ids++][length] = 0;
    }
}

/* Parse one RESP value at `at`; its end, or NULL when bytes are missing. *last becomes its last bulk string; messages in
 * arrays of arrays (batch) keep theirs as they end. */
static char *resp_value(struct conn *c, char *at, char *end, char **last, int *last_length, int depth) {
    char *eol = memchr(at, '\n', end - at);
    if (!eol) return NULL;
    char *next = eol + 1;
    long n = atol(at + 1);
    if (*at == '-') fail("error reply", at, eol - at);
    if (*at == '$') {
        if (n < 0) return next;
        if (end - next < n + 2) return NULL;
        *last = next;
        *last_length = n;
        return next + n + 2;
    }
    if (*at == '*') {
        for (long i = 0; i < n && next; i++) {
            next = resp_value(c, next, end, last, last_length, depth + 1);
            if (next && depth == 0 && is(mode, "batch") && c->kind == POP) keep_id(c, *last, *last_length);
        }
    }
    return next;
}

static char *reply(struct conn *c, char *at, char *end) {
    if (is(proto, "beanstalk")) {
        char *eol = memchr(at, '\n', end - at);
        if (!eol) return NULL;
        if (strncmp(at, "RESERVED ", 9) == 0) {
            char *space = memchr(at + 9, ' ', eol - at - 9);
            long n = atol(space + 1);
            if (end - eol - 1 < n + 2) return NULL;
            keep_id(c, at + 9, space - at - 9);
            return eol + 1 + n + 2;
        }
        if (strncmp(at, "INSERTED", 8) && strncmp(at, "DELETED", 7) && strncmp(at, "TIMED_OUT", 9))
            fail("reply", at, eol - at);
        return eol + 1;
    }
    char *last = NULL;
    int last_length = 0, ids = c->ids;
    char *next = resp_value(c, at, end, &last, &last_length, 0);
    if (!next) c->ids = ids;
    else if (c->kind == POP && !is(mode, "batch") && *at == '*' && last) {
        if (is(proto, "direct")) { /* [id, body] */
            char *first = memchr(at, '\n', end - at) + 1, *digits = memchr(first, '\n', end - first) + 1;
            keep_id(c, digits, atol(first + 1));
        } else keep_id(c, last, last_length);
    }
    return next;
}

static void next_blocking(struct conn *c) {
    if (c->kind == PUSH) {
        resting[resting_count++] = c;
    } else if (c->kind == POP && c->ids) {
        c->kind = ACK;
        pushes_allowed++;
        send_round(c);
    } else {
        jobs += c->kind == ACK;
        c->kind = POP;
        send_round(c);
    }
    while (pushes_allowed && resting_count) {
        pushes_allowed--;
        send_round(resting[--resting_count]);
    }
}

/* All replies of a round are there: what comes next. */
static void next_round(struct conn *c) {
    if (is(mode, "block")) {
        next_blocking(c);
        return;
    }
    int pushes = !is(mode, "popack");
    if (c->kind == PUSH) {
        c->kind = POP;
    } else if (c->kind == POP) {
        if (c->ids) c->kind = ACK;
        else if (pushes) c->kind = PUSH;
    } else {
        jobs += c->ids;
        c->kind = pushes ? PUSH : POP;
        c->queue = (c->queue + queues_at_once) % queues;
    }
    send_round(c);
}

static void readable(struct conn *c) {
    if (c->room - c->used < 65536) c->in = realloc(c->in, c->room = c->room * 2 + 131072);
    ssize_t n = read(c->fd, c->in + c->used, c->room - c->used);
    if (n <= 0) fail("read", n ? strerror(errno) : "closed", 80);
    c->used += n;
    char *at = c->in, *end = c->in + c->used, *next;
    while (c->got < c->want && at < end && (next = reply(c, at, end))) {
        at = next;
        c->got++;
    }
    c->used = end - at;
    memmove(c->in, at, c->used);
    if (c->got == c->want) next_round(c);
}

int main(int argc, char **argv) {
    if (argc != 9) fail("usage", "load PROTO PORT CONNS PIPELINE BODY_BYTES SECONDS QUEUES MODE", 80);
    proto = argv[1];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    conns = atoi(argv[3]);
    pipeline = atoi(argv[4]);
    body_bytes = atoi(argv[5]);
    double seconds = atof(argv[6]);
    queues = queues_at_once = atoi(argv[7]);
    if (strchr(argv[7], ':')) queues_at_once = atoi(strchr(argv[7], ':') + 1);
    mode = argv[8];
    if (pipeline > MAX_PIPELINE) fail("pipeline", "too deep", 20);
    body = malloc(body_bytes + 1);
    memset(body, 'x', body_bytes);
    out = malloc((size_t)pipeline * (body_bytes + 512) + 4096);
    struct conn *all = calloc(conns, sizeof *all);
    resting = calloc(conns, sizeof *resting);
    int epoll = epoll_create1(0), one = 1;
    for (int i = 0; i < conns; i++) {
        struct conn *c = &all[i];
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect", strerror(errno), 80);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->queue = i % queues_at_once;
        c->kind = is(mode, "popack") || (is(mode, "block") && i % 2) ? POP : PUSH;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    }
    double start = now(), end = start + seconds;
    for (int i = 0; i < conns; i++) send_round(&all[i]);
    struct epoll_event events[256];
    while (now() < end) {
        int n = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < n; i++) readable(events[i].data.ptr);
    }
    printf("%.0f\n", jobs / (now() - start));
    return 0;
}
