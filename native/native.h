/* What the parts of snapvault._native show to the module's table. */
#ifndef SNAPVAULT_NATIVE_H
#define SNAPVAULT_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef _WIN32
PyObject *native_list_names(PyObject *self, PyObject *args);
PyObject *native_stat_entries(PyObject *self, PyObject *args);
PyObject *native_read_files(PyObject *self, PyObject *args);
PyObject *native_write_files(PyObject *self, PyObject *args);
#endif

#endif
