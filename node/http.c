/* http.c - see http.h */
#include "node/http.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

#include "node/base/err.h"

/* The ABI that the header is of. */
#define LIBRARY "libmicrohttpd.so.12"

/* ISO C has no cast from an object pointer to a function's. */
static bool find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

int http_open(struct http *h, struct err *e)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return err_set(e, ERR_NOT_FOUND,
                       "%s is not installed: Debian has it in the package libmicrohttpd12",
                       LIBRARY);
    *h = (struct http){.library = library};
    bool all = find(library, "MHD_start_daemon", &h->start_daemon);
    all &= find(library, "MHD_quiesce_daemon", &h->quiesce_daemon);
    all &= find(library, "MHD_stop_daemon", &h->stop_daemon);
    all &= find(library, "MHD_create_response_from_buffer", &h->create_response_from_buffer);
    all &= find(library, "MHD_add_response_header", &h->add_response_header);
    all &= find(library, "MHD_queue_response", &h->queue_response);
    all &= find(library, "MHD_destroy_response", &h->destroy_response);
    if (all)
        return 0;
    http_close(h);
    return err_set(e, ERR_NOT_FOUND, "%s lacks functions", LIBRARY);
}

void http_close(struct http *h)
{
    if (h->library != NULL)
        dlclose(h->library);
    *h = (struct http){0};
}
