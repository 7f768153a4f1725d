/*
 * http.h - libmicrohttpd, loaded by the one stage that serves HTTP
 *
 * It brings a TLS library of its own with ten more behind that, none of which is asked for anything
 * here, and loading them is a third of what every command and every stage would wait at its start.
 */
#ifndef SPINENODE_NODE_HTTP_H
#define SPINENODE_NODE_HTTP_H

#include <microhttpd.h>

struct err;

/* The library's functions by their own names, less MHD_. */
struct http {
    void *library;
    __typeof__(MHD_start_daemon) *start_daemon;
    __typeof__(MHD_quiesce_daemon) *quiesce_daemon;
    __typeof__(MHD_stop_daemon) *stop_daemon;
    __typeof__(MHD_create_response_from_buffer) *create_response_from_buffer;
    __typeof__(MHD_add_response_header) *add_response_header;
    __typeof__(MHD_queue_response) *queue_response;
    __typeof__(MHD_destroy_response) *destroy_response;
};

/* ERR_NOT_FOUND: the library is not there, or is another one. */
int http_open(struct http *h, struct err *e);
void http_close(struct http *h); /* one that was not opened, too, if it is all zero */

#endif
